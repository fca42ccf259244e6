"""From a video to a PERSON folder, in stages that resume; see docs/design.md for what each one writes."""

"""From a video to a PERSON folder, in stages that resume; see docs/architecture.md for what each one writes."""

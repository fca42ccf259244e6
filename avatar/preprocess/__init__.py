"""From a video to a PERSON folder, in stages that resume; see docs/file_formats.md for what each one writes."""

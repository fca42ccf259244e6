"""Files that say that a program made them: content credentials (C2PA), the digital source type (IPTC), a label."""

"""Exporters: formats that an avatar, its motion, or its person is written in, found by their name.

Another format is a class in one file, announced by an entry point of the group ``avatar.exporters``. Its fields are
its options on the command line: see docs/new_exporters.md.
"""

from __future__ import annotations

from avatar.export.base import Exporter
from avatar.registry import Registry

EXPORTERS: Registry[Exporter] = Registry(
    "export format",
    "avatar.exporters",
    {
        "arkit-json": "avatar.export.motion_files:ArkitJson",
        "baked": "avatar.export.baked:BakedBasis",
        "dataset": "avatar.export.dataset:ErNerfDataset",
        "live-link": "avatar.export.motion_files:LiveLink",
        "mesh": "avatar.export.mesh:HeadMesh",
        "motion": "avatar.export.motion_files:MotionFile",
        "web": "avatar.export.web.exporter:WebFolder",
    },
    ("suffixes", "default", "needs", "write"),
)
register_exporter = EXPORTERS.register

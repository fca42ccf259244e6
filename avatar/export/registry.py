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
        "bundle": "avatar.export.bundle:Bundle",
        "dataset": "avatar.export.dataset:ErNerfDataset",
        "frames": "avatar.export.images:Frames",
        "gif": "avatar.export.images:Gif",
        "glb": "avatar.export.glb:Glb",
        "live-link": "avatar.export.motion_files:LiveLink",
        "live-link-udp": "avatar.export.live_link_udp:LiveLinkUdp",
        "mesh": "avatar.export.mesh:HeadMesh",
        "motion": "avatar.export.motion_files:MotionFile",
        "mov": "avatar.export.videos:Mov",
        "mp4": "avatar.export.videos:Mp4",
        "ply": "avatar.export.ply:Ply",
        "ply-sequence": "avatar.export.ply:PlySequence",
        "spz": "avatar.export.spz:Spz",
        "visemes": "avatar.export.visemes:Visemes",
        "vrma": "avatar.export.vrma:Vrma",
        "web": "avatar.export.web.exporter:WebFolder",
        "webm": "avatar.export.videos:WebM",
        "webp": "avatar.export.images:WebP",
    },
    ("suffixes", "default", "needs", "write"),
)
register_exporter = EXPORTERS.register

"""docs/formats.md lists every format and every ABI with the number that the code has."""

from __future__ import annotations

import re

from tests.docs_text import ROOT

PAGE = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
NAME = re.compile(r"\bavatar-[a-z0-9-]+-\d+\b")


def test_every_format_of_the_code_is_on_the_page_with_its_number():
    code = {
        found
        for path in (ROOT / "avatar").rglob("*.py")
        for found in re.findall(r'"(avatar-[a-z-]+-\d+)"', path.read_text(encoding="utf-8"))
    }
    assert len(code) > 20
    page = set(NAME.findall(PAGE))
    assert code == page, f"missing: {sorted(code - page)}; of the past: {sorted(page - code)}"


def test_versions_of_the_kernels_are_on_the_page():
    for header, name, library in (
        ("avatar_native.h", "AVATAR_ABI_VERSION", "_native_cpu"),
        ("avatar_cuda.h", "AVATAR_CUDA_ABI_VERSION", "_native_cuda"),
    ):
        text = (ROOT / "cuda_ext/include" / header).read_text(encoding="utf-8")
        number = re.search(rf"#define {name} (\d+)", text)
        row = re.search(rf"`{library}\.so` \| C ABI (\d+) \| `{name}`", PAGE)
        assert number and row and row[1] == number[1]

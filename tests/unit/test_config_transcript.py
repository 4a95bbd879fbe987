"""What was read, as one text."""

from __future__ import annotations

from kad.config.source import TextReader
from kad.config.text import read_tree
from kad.config.transcript import Transcript


def transcript_of(files: dict[str, str | bytes]) -> str:
    transcript = Transcript()
    read_tree("/main", reader=TextReader(files), transcript=transcript)
    return transcript.text()


def test_an_include_stands_in_the_place_of_its_line() -> None:
    files: dict[str, str | bytes] = {
        "/main": "a 1 # why\n\n  include /one\nb 2",
        "/one": "$N=7\nc {\ninclude /two\n}\n",
        "/two": "d $N\n",
    }
    assert transcript_of(files) == (
        "# /main\na 1 # why\n\n# include /one\n"
        "# /one\n$N=7\nc {\n# include /two\n# /two\nd $N\n!\n}\n!\nb 2\n!\n"
    )


def test_two_includes_of_one_line_and_one_that_finds_nothing() -> None:
    files: dict[str, str | bytes] = {
        "/main": "~SEQ(n,1,2) include /f$n\ninclude /none\n",
        "/f1": "a",
        "/f2": "b",
    }
    assert transcript_of(files) == (
        "# /main\n# ~SEQ(n,1,2) include /f$n\n# /f1\na\n!\n# /f2\nb\n!\ninclude /none\n!\n"
    )


def test_bytes_and_broken_readings_are_kept_too() -> None:
    deep: dict[str, str | bytes] = {"/main": b"a \xff\ninclude /loop\nz\n", "/loop": "include /main\nq\n"}
    text = transcript_of(deep)
    assert "a \udcff\n" in text and text.endswith("q\n!\nz\n!\n")
    endless: dict[str, str | bytes] = {
        "/main": "include /0\nlast\n",
        **{f"/{n}": f"include /{n + 1}\nend {n}\n" for n in range(100)},
    }
    assert transcript_of(endless).endswith("end 1\n!\nend 0\n!\nlast\n!\n"), "it broke off in all of them"

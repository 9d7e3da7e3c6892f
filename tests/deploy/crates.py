"""Does a binary say what it is made of? Reads the list of crates that cargo-auditable writes into it, and holds it to Cargo.lock.

    crates.py BINARY     ends with 1 and says why, if there is no list or it names other versions
"""

import json
import pathlib
import struct
import sys
import tomllib
import zlib

LOCK = pathlib.Path(__file__).resolve().parents[2] / "Cargo.lock"
SECTION = b".dep-v0"


def section(binary):
    """The content of the section of a 64-bit little-endian ELF file; None if it has none."""
    if binary[:6] != b"\x7fELF\x02\x01":
        sys.exit("not a 64-bit ELF file")
    (headers,) = struct.unpack_from("<Q", binary, 0x28)
    size, count, names = struct.unpack_from("<HHH", binary, 0x3A)
    table = [struct.unpack_from("<IIQQQQ", binary, headers + index * size) for index in range(count)]
    _, _, _, _, start, _ = table[names]
    for name, _, _, _, offset, length in table:
        if binary[start + name :].startswith(SECTION + b"\0"):
            return binary[offset : offset + length]
    return None


def main():
    packed = section(pathlib.Path(sys.argv[1]).read_bytes())
    if packed is None:
        sys.exit("the binary has no list of its crates: was it built with cargo auditable?")
    listed = json.loads(zlib.decompress(packed))["packages"]
    (root,) = [crate["name"] for crate in listed if crate.get("root")]
    locked = {(crate["name"], crate["version"]) for crate in tomllib.loads(LOCK.read_text())["package"]}
    strange = sorted({(crate["name"], crate["version"]) for crate in listed} - locked)
    if root != "mcp-messaging" or strange or len(listed) < 50:
        sys.exit(f"the list is of {root}, {len(listed)} crates; not in Cargo.lock: {strange}")
    print(f"{len(listed)} crates")


main()

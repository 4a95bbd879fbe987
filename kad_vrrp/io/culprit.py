"""Whose netlink socket a port is, as far as that can be told."""


def process_at(port_id: int) -> str:
    """The process's name in quotes; "the kernel" for port 0, "another" for a process that is gone.

    The first socket of a process has its number as port; further ones have any.
    """
    if port_id == 0:
        return "the kernel"
    try:
        with open(f"/proc/{port_id}/comm", "rb") as file:
            name = file.read(64).decode(errors="replace").strip()
    except OSError:
        return "another"
    return f"'{name}' (process {port_id})"

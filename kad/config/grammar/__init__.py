"""The rows, a module for each part of the language.

Every module has ``ROOT_ROWS`` (what may stand outside every block) and, where the whole file must have been
read first, ``finish(reading, root)``, which resolves the root frame's fields into model Structs and reports
what only then can be judged: ``check.finish(reading, root) -> CheckConfiguration``,
``bfd.finish(reading, root) -> BfdConfiguration``, ``vrrp.finish(reading, root) -> VrrpConfiguration``.
Root fields that collect are lists: ``root.fields["virtual_server"]``, ``["vrrp_instance"]``,
``["bfd_instance"]`` … (``repeat=Repeat.ADD``). ``reading.globals`` has the fields of global_defs by keyword.
"""

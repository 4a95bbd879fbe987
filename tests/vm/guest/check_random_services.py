"""Random virtual servers under keepalived and kad, with the tables of a real kernel; KAD_SEED: others."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.support.daemon import Kad, Keepalived
from tests.support.dialogues import Tls
from tests.support.lvs import Farm, table
from tests.support.lvs_trial import Side, Trial
from tests.support.namespaces import Network

PATIENCE_S = 180


def test_the_same_tables_and_the_same_told(network: Network, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    tls = Tls(tmp_path)
    with contextlib.closing(Farm()) as farm:

        def make(label: str, place: Path) -> Side:
            node = network.node(label)
            daemon = (Kad if label == "kad" else Keepalived)(node, "")
            return Side(node, place, daemon, lambda: table(node), farm, tls)

        seed = int(os.environ.get("KAD_SEED", "1"))
        trial = Trial(seed, tmp_path, make, size=6, patience_s=PATIENCE_S)
        assert trial.run() == []

"""Letters about transitions: when the engine asks for them, in keepalived's words."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kad.config.model.globals import Mail, SmtpServer
from kad.config.model.vrrp import NotifyScripts, SyncGroup, VrrpSettings
from kad_vrrp.core.actions import Notify
from kad_vrrp.core.events import StopRequested
from tests.support.configuration import read
from tests.support.vrrp_host import NOTIFY, instance, link
from tests.support.vrrp_playbook import Playbook

MAIL = Mail(recipients=("ops@example.org",), server=SmtpServer("192.0.2.25"))
OWNING = "=> VRRP Instance is now owning VRRP VIPs <="
NOT_OWNING = "=> VRRP Instance is no longer owning VRRP VIPs <="


def book(mail: Mail = MAIL, **fields: Any) -> Playbook:
    made = Playbook(instance(**{"smtp_alert": True, "notify": NotifyScripts(), **fields}))
    made.settings = VrrpSettings(mail=mail)
    return made


def letters(made: Playbook) -> list[tuple[str, str]]:
    """What was to be mailed since the last look."""
    found = [each.letter for each in made.actions if isinstance(each, Notify)]
    made.actions.clear()
    return [(letter.subject, letter.body) for letter in found if letter is not None]


def test_every_transition_is_mailed() -> None:
    made = book().start()
    made.run_for(4_000_000)
    made.set_link(link(up=False))
    made.tell(StopRequested())
    assert letters(made) == [
        ("VRRP Instance VI_1 - Entering BACKUP state", NOT_OWNING),
        ("VRRP Instance VI_1 - Entering MASTER state", OWNING),
        ("VRRP Instance VI_1 - Entering FAULT state", NOT_OWNING),
        ("VRRP Instance VI_1 - Stopping", "=> VRRP Instance stopping <="),
    ]


def test_a_letter_goes_with_the_script() -> None:
    made = book(notify=NOTIFY).start()
    (notify,) = (each for each in made.actions if isinstance(each, Notify))
    assert notify.commands and notify.letter is not None


def test_nobody_is_mailed_without_alerts_a_server_and_a_recipient() -> None:
    for made in (
        book(smtp_alert=False),
        book(replace(MAIL, server=None)),
        book(replace(MAIL, recipients=())),
    ):
        made.start().run_for(4_000_000)
        assert letters(made) == []


def test_without_faults_a_state_that_was_mailed_last_is_not_mailed_again() -> None:
    made = book(replace(MAIL, no_faults=True)).start()
    letters(made)
    made.set_link(link(up=False))
    made.set_link(link())
    assert letters(made) == []
    made.run_for(4_000_000)
    made.set_link(link(up=False))
    made.set_link(link())
    assert [subject for subject, _ in letters(made)] == [
        "VRRP Instance VI_1 - Entering MASTER state",
        "VRRP Instance VI_1 - Entering BACKUP state",
    ]


def test_an_instance_that_a_reload_deletes() -> None:
    for notify_deleted, subject in ((True, "Deleted"), (False, "Entering FAULT state")):
        made = book(notify_deleted=notify_deleted).start()
        letters(made)
        made.reload()
        assert [each for each, _ in letters(made)] == [f"VRRP Instance VI_1 - {subject}"]


def test_a_group_is_mailed_after_its_members() -> None:
    made = Playbook(instance(sync_group="G", smtp_alert=True))
    made.sync_groups = (SyncGroup("G", ("VI_1",), smtp_alert=True),)
    made.settings = VrrpSettings(mail=MAIL)
    made.start().run_for(4_000_000)
    made.tell(StopRequested())
    assert [(subject, body) for subject, body in letters(made) if "Group" in subject] == [
        ("VRRP Group G - Entering BACKUP state", "=> All VRRP group instances are now in BACKUP state <="),
        ("VRRP Group G - Entering MASTER state", "=> All VRRP group instances are now in MASTER state <="),
        ("VRRP Group G - Stopping", "=> All VRRP group instances are now stopping <="),
    ]


def test_alerts_fall_back_to_the_global_setting() -> None:
    def configured(settings: str, own: str = "", of_group: str = "") -> tuple[bool, bool]:
        text = (
            f"global_defs {{\n{settings}\n}}\n"
            "vrrp_instance A {\ninterface eth0\nvirtual_router_id 1\n"
            f"virtual_ipaddress {{\n10.0.0.1\n}}\n{own}\n}}\n"
            f"vrrp_sync_group G {{\ngroup {{\nA\n}}\n{of_group}\n}}\n"
        )
        vrrp = read(text).config.vrrp
        return vrrp.instances[0].smtp_alert, vrrp.sync_groups[0].smtp_alert

    assert configured("") == (False, False)
    assert configured("smtp_alert") == (True, True)
    assert configured("smtp_alert\nsmtp_alert_vrrp off") == (False, False)
    assert configured("smtp_alert off\nsmtp_alert_vrrp on") == (True, True)
    assert configured("smtp_alert", "smtp_alert off", "smtp_alert off") == (False, False)
    assert configured("smtp_alert_checker on", of_group="smtp_alert on") == (False, True)

"""The dump: what differs from the defaults, without secrets."""

from kad.config.model.config import Config
from kad.config.render import lines
from tests.support.configuration import read


def test_what_was_said_is_shown_and_secrets_are_not() -> None:
    loaded = read(
        """
vrrp_instance A {
    interface eth0
    virtual_router_id 7
    authentication {
        auth_type PASS
        auth_pass hunter2
    }
    notify_master "/etc/up.sh now"
    virtual_ipaddress {
        10.0.0.1/24 dev eth1
    }
}
"""
    )
    shown = list(lines(loaded.config))
    assert "  instances[]:" in shown
    assert "    virtual_router_id: 7" in shown
    assert "      address: 10.0.0.1" in shown
    assert "      master: '/etc/up.sh' 'now' as 0:0" in shown
    assert "    auth_pass: ********" in shown
    assert not any("hunter2" in line for line in shown)
    assert not any("advert_int" in line for line in shown)


def test_an_empty_configuration_has_nothing_to_show() -> None:
    assert list(lines(Config())) == []

import base64
import hashlib
import re

from relayd.control import page


def test_the_page_loads_nothing_from_elsewhere() -> None:
    text = page.html(has_source=True)
    assert not re.findall(r"""(?:src|href|action)=["']?(?:https?:)?//""", text)
    assert not re.findall(r"url\(|@import|<link (?!rel=\"icon\" href=\"data:)", text)


def test_the_policy_allows_exactly_the_inline_script_and_style() -> None:
    policy = page.HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        (block,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.html(has_source=False), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.findall(r"<[a-z]+[^>]* (?:on\w+|style)=", page.html(has_source=True))


def test_text_has_a_contrast_of_at_least_4_5_on_every_ground() -> None:
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", page.html(has_source=True)))
    for ground in ("ground", "card"):
        for text in ("text", "soft", "good", "busy", "bad", "accent"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

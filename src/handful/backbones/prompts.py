"""The compositional prompt ensemble: every state of an object in every template.

Jeong et al., WinCLIP, CVPR 2023, https://arxiv.org/abs/2303.14814, section 4.1. States and templates follow the public
implementations (zqhang/Accurate-WinCLIP-pytorch at eef4f8c, mala-lab/WinCLIP at 4880fc4, which differ in one
template); here every template is used with both articles.
"""

from collections.abc import Sequence

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
TEMPLATES = tuple(
    template.replace("ARTICLE", article)
    for template in (
        "a cropped photo of ARTICLE {}.",
        "a close-up photo of ARTICLE {}.",
        "a bright photo of ARTICLE {}.",
        "a dark photo of ARTICLE {}.",
        "a jpeg corrupted photo of ARTICLE {}.",
        "a blurry photo of ARTICLE {}.",
        "a photo of ARTICLE {}.",
        "a photo of ARTICLE small {}.",
        "a photo of ARTICLE large {}.",
        "a photo of ARTICLE {} for visual inspection.",
        "a photo of ARTICLE {} for anomaly detection.",
    )
    for article in ("a", "the")
)


def prompts(object_name: str, states: Sequence[str]) -> list[str]:
    """The prompts for an object: every template with every state."""
    return [template.format(state.format(object_name)) for state in states for template in TEMPLATES]

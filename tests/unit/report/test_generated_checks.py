"""The checks of edited images on the page: means by mode over requests, and nothing claimed of a single request."""

from genloop.report.generated.checks import check_means, check_words
from genloop.runs.rows import EditRecord, GeneratedRow


def row(index: int, mode: str, **checks: float | None) -> GeneratedRow:
    edit = EditRecord(mode=mode, input_image="a.png", width=16, height=16, steps=2, checks=checks)
    return GeneratedRow.model_construct(prompt_index=index, edit=edit)


def test_a_mean_has_an_interval_over_requests_and_counts_what_is_equal() -> None:
    rows = [row(0, "inpaint", similarity=0.5, outside_psnr=None), row(1, "inpaint", similarity=0.7, outside_psnr=30.0)]
    rows += [row(2, "img2img", similarity=0.1)]
    found = {(check.name, check.mode): check for check in check_means(rows)}
    assert set(found) == {("similarity", "inpaint"), ("similarity", "img2img"), ("outside_psnr", "inpaint")}
    both = found["similarity", "inpaint"]
    assert both.mean is not None and both.requests == 2
    assert both.mean.low <= 0.5 and abs(both.mean.estimate - 0.6) < 1e-9 and both.mean.high >= 0.7
    psnr = found["outside_psnr", "inpaint"]
    assert (psnr.values, psnr.equal, psnr.mean, psnr.text) == (1, 1, None, "-")


def test_an_image_says_its_checks_in_words() -> None:
    edit = row(0, "inpaint", similarity=0.5, outside_psnr=None, edge_f1=None).edit
    assert edit is not None and check_words(edit) == ["SSIM 0.50", "equal outside"]

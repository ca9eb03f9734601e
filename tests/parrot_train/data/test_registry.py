"""Table 3's datasets, as counts, and where to get them."""

from urllib.parse import urlsplit

from parrot_runtime.languages import CODES
from parrot_train.data.registry import DATASETS, as_data, describe


def test_the_counts_are_those_of_table_3():
    thousands = {(each.stage, each.name.split("-")[0], each.language): each.records // 1000 for each in DATASETS}
    assert thousands == {
        (1, "LLaVA", "en"): 558,
        (1, "Laion", "en"): 12,
        (1, "CC12M", "en"): 645,
        (2, "LLaVA", "en"): 665,
        (2, "ShareGPT4V", "zh"): 71,
        (2, "ShareGPT4V", "pt"): 14,
        (2, "ShareGPT4V", "ar"): 12,
        (2, "ShareGPT4V", "tr"): 17,
        (2, "ShareGPT4V", "ru"): 14,
    }


def test_each_says_where_it_is():
    assert len({each.name for each in DATASETS}) == len(DATASETS) == len(as_data())
    lines = "\n".join(describe())
    for each in DATASETS:
        assert each.language in CODES
        assert urlsplit(each.page).scheme == "https"
        assert each.page in lines
        assert each.file is None or each.file in lines
    assert "1,215,000" in lines  # stage 1: the 1.2M of the paper

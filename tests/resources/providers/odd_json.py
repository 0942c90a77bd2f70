"""Generated JSON of any kind, as a provider might send it on a bad day."""

from typing import Any

from hypothesis import strategies as st


def anything_json() -> st.SearchStrategy[Any]:
    """Return a strategy for JSON values as they are decoded: exact decimals, odd texts, small lists and objects."""
    leaf = (
        st.none()
        | st.booleans()
        | st.integers(-(10**30), 10**30)
        | st.decimals(allow_nan=True)
        | st.text(max_size=12)
        | st.sampled_from(["1", "-1", "0.5", "1e999999999", "NaN", "Unlimited", "LPA:1$", "USD", "ES"])
    )
    inner = st.lists(leaf, max_size=3) | st.dictionaries(st.text(max_size=5), leaf, max_size=3)
    return leaf | inner | st.lists(inner, max_size=2)

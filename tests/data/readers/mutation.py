"""JSON documents with something wrong in them."""

from hypothesis import strategies as st

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["../../etc/passwd", "\x00", "\n", "a\nb", "\ud800", "a" * 300, -1, 0, 10**30, float("nan"), float("inf")]
    ),
    st.lists(st.integers(-3, 3) | st.none(), max_size=7),
    st.dictionaries(st.sampled_from(["id", "size", "counts", "x"]), st.integers(-3, 300) | st.text(max_size=4)),
)


@st.composite
def mutations(draw, value, most=3):
    """A document in which up to three places hold something else, are gone, or occur twice."""
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(value))
        if not places:
            return draw(ODD)
        holder, key = draw(st.sampled_from(places))
        action = draw(st.sampled_from(["other", "gone", "twice"]))
        if action == "gone":
            del holder[key]
        elif action == "twice" and isinstance(holder, list):
            holder.append(holder[key])
        else:
            holder[key] = draw(ODD)
    return value


def _places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)

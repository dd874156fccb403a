"""All question templates, by family; the slots are those of ``kyvo.world.questions.template``.

Most wordings are made of a frame, such as "How many @ are there?", and what it asks about.
"""

from collections.abc import Mapping

from kyvo.world.questions.template import (
    SCENE,
    Call,
    Described,
    Template,
    both,
    count,
    either,
    exist,
    query,
    relate,
    same,
    some,
    the,
)

_Special = Mapping[str, tuple[str, ...]]

# In a frame @ is for one object or several, # for those that they are compared with.
_WHICH = (
    "What {x} is @?",
    "What is the {x} of @?",
    "Which {x} does @ have?",
    "Looking at @, what {x} is it?",
)
_WHICH_SPECIAL = {
    "size": ("How big is @?", "How large is @?"),
    "material": ("Of which material is @?", "What kind of material is used for @?"),
    "shape": ("What form does @ have?",),
}
_HOW_MANY = (
    "How many @ are there?",
    "What number of @ are there?",
    "What is the number of @?",
    "Counting the @, how many do you get?",
)
_ANY = (
    "Are there any @?",
    "Does the scene contain any @?",
    "Can you find any @?",
)
_AS_MANY = (
    "Are there as many @ as #?",
    "Is the number of @ the same as the number of #?",
    "Are the @ and the # equal in number?",
)
_MORE = (
    "Are there more @ than #?",
    "Is the number of @ greater than the number of #?",
    "Do the @ outnumber the #?",
)
_FEWER = (
    "Are there fewer @ than #?",
    "Is the number of @ smaller than the number of #?",
    "Are the @ outnumbered by the #?",
)
_ALIKE = (
    "Do @ and # have the same {x}?",
    "Does @ have the same {x} as #?",
    "Is the {x} of @ the same as that of #?",
    "Are @ and # alike in {x}?",
)
_ALIKE_SPECIAL = {
    "size": ("Is @ just as big as #?",),
    "material": ("Are @ and # made of the same material?",),
}

# These name one object over zero to three relations, and several by one relation more.
_A = "the {a}"
_B = "the {b} that is {r} the {a}"
_C = "the {c} that is {s} the {b} that is {r} the {a}"
_D = "the {d} that is {t} the {c} that is {s} the {b} that is {r} the {a}"
_THE_A = the("a")
_THE_B = the("b", relate("r", _THE_A))
_THE_C = the("c", relate("s", _THE_B))


def _say(frames: tuple[str, ...], one: str, other: str = "") -> tuple[str, ...]:
    return tuple(frame.replace("@", one).replace("#", other) for frame in frames)


def _say_special(frames: _Special, one: str, other: str = "") -> _Special:
    return {attribute: _say(more, one, other) for attribute, more in frames.items()}


def _which(family: str, name: str, one: str, program: Call) -> Template:
    """Ask for an attribute of one object."""
    special = _say_special(_WHICH_SPECIAL, one)
    return Template(family, f"query_{name}", query(program), _say(_WHICH, one), special)


def _how_many(
    family: str, name: str, objects: str, program: Call | Described, *more: str
) -> Template:
    return Template(family, f"count_{name}", count(program), (*_say(_HOW_MANY, objects), *more))


def _any(family: str, name: str, objects: str, program: Call | Described, *more: str) -> Template:
    return Template(family, f"exist_{name}", exist(program), (*_say(_ANY, objects), *more))


_HOPS = (
    _which("zero_hop", "plain", _A, the("a", hidden="x")),
    _how_many("zero_hop", "plain", "{a:s}", some("a")),
    _any("zero_hop", "plain", "{a:s}", some("a"), "Is there {a:a}?", "Can {a:a} be seen?"),
    Template(
        "zero_hop",
        "count_all",
        count(SCENE),
        (
            "How many things are there in total?",
            "What is the total number of objects?",
            "How many objects does the whole scene contain?",
        ),
    ),
    _which("one_hop", "near", _B, the("b", relate("r", _THE_A), "x")),
    _how_many(
        "one_hop",
        "near",
        "{b:s} {r} the {a}",
        some("b", relate("r", _THE_A)),
        "How many {b:s} are {r} the {a}?",
    ),
    _any(
        "one_hop",
        "near",
        "{b:s} {r} the {a}",
        some("b", relate("r", _THE_A)),
        "Is there {b:a} {r} the {a}?",
    ),
    _which("two_hop", "chain", _C, the("c", relate("s", _THE_B), "x")),
    _how_many(
        "two_hop",
        "chain",
        "{c:s} {s} " + _B,
        some("c", relate("s", _THE_B)),
        "Take the {b} {r} the {a}: how many {c:s} are {s} it?",
    ),
    _any(
        "two_hop",
        "chain",
        "{c:s} {s} " + _B,
        some("c", relate("s", _THE_B)),
        "Take the {b} {r} the {a}: is there {c:a} {s} it?",
    ),
    _which("three_hop", "long_chain", _D, the("d", relate("t", _THE_C), "x")),
    _how_many("three_hop", "long_chain", "{d:s} {t} " + _C, some("d", relate("t", _THE_C))),
    _any(
        "three_hop",
        "long_chain",
        "{d:s} {t} " + _C,
        some("d", relate("t", _THE_C)),
        "Is there {d:a} {t} the {c} that is {s} the {b} that is {r} the {a}?",
    ),
)

_NEAR_BOTH = both(relate("r", the("a")), relate("s", the("b")))
_NEAR_AND_SAME = both(relate("r", the("a")), same(the("b", hidden="y")))
_SINGLE_AND = (
    _which(
        "single_and",
        "near_both",
        "the {c} that is both {r} the {a} and {s} the {b}",
        the("c", _NEAR_BOTH, "x"),
    ),
    _how_many(
        "single_and",
        "near_both",
        "{c:s} that are both {r} the {a} and {s} the {b}",
        some("c", _NEAR_BOTH),
        "How many {c:s} are {r} the {a} and also {s} the {b}?",
    ),
    _any(
        "single_and",
        "near_both",
        "{c:s} that are both {r} the {a} and {s} the {b}",
        some("c", _NEAR_BOTH),
        "Is there {c:a} that is both {r} the {a} and {s} the {b}?",
    ),
    _which(
        "single_and",
        "near_and_same",
        "the other {c} that is {r} the {a} and has the same {y} as the {b}",
        the("c", _NEAR_AND_SAME, "xy"),
    ),
    _how_many(
        "single_and",
        "near_and_same",
        "other {c:s} that are {r} the {a} and have the same {y} as the {b}",
        some("c", _NEAR_AND_SAME, "y"),
    ),
    _any(
        "single_and",
        "near_and_same",
        "other {c:s} that are {r} the {a} and have the same {y} as the {b}",
        some("c", _NEAR_AND_SAME, "y"),
    ),
)

_NEAR_EITHER = either(relate("r", the("a")), relate("s", the("b")))
_NEAR_OR_PLAIN = either(some("b", relate("r", the("a"))), some("c"))
_SINGLE_OR = (
    Template(
        "single_or",
        "count_two_kinds",
        count(either(some("a"), some("b"))),
        (
            "How many things are either {a:s} or {b:s}?",
            "What number of objects are {a:s} or {b:s}?",
            "How many {a:s} or {b:s} are there?",
        ),
        apart=("a", "b"),
    ),
    Template(
        "single_or",
        "exist_two_kinds",
        exist(either(some("a"), some("b"))),
        (
            "Are there any {a:s} or {b:s}?",
            "Is there anything that is either {a:a} or {b:a}?",
        ),
        apart=("a", "b"),
    ),
    _how_many(
        "single_or",
        "near_either",
        "{c:s} that are either {r} the {a} or {s} the {b}",
        some("c", _NEAR_EITHER),
        "How many {c:s} are {r} the {a} or {s} the {b}?",
    ),
    _any(
        "single_or",
        "near_either",
        "{c:s} that are either {r} the {a} or {s} the {b}",
        some("c", _NEAR_EITHER),
        "Is there {c:a} that is either {r} the {a} or {s} the {b}?",
    ),
    Template(
        "single_or",
        "count_near_or_plain",
        count(_NEAR_OR_PLAIN),
        (
            "How many things are either {b:s} {r} the {a} or {c:s}?",
            "What number of objects are either {b:s} {r} the {a} or {c:s}?",
        ),
        apart=("b", "c"),
    ),
)

_SAME = same(the("a", hidden="y"))
_SAME_ATTRIBUTE = (
    _which(
        "same_attribute",
        "same",
        "the other {b} with the same {y} as the {a}",
        the("b", _SAME, "xy"),
    ),
    _how_many(
        "same_attribute",
        "same",
        "other {b:s} with the same {y} as the {a}",
        some("b", _SAME, "y"),
        "How many other {b:s} have the same {y} as the {a}?",
        "The {a} shares its {y} with how many other {b:s}?",
    ),
    _any(
        "same_attribute",
        "same",
        "other {b:s} with the same {y} as the {a}",
        some("b", _SAME, "y"),
        "Does another {b} have the same {y} as the {a}?",
        "Does the {a} share its {y} with another {b}?",
    ),
)

_SAME_AS_NEAR = same(the("b", relate("r", the("a")), "y"))
_NEAR_THE_SAME = relate("r", the("b", _SAME, "y"))
_SAME_AND_HOP = (
    _which(
        "same_and_hop",
        "same_as_near",
        "the other {c} with the same {y} as " + _B,
        the("c", _SAME_AS_NEAR, "xy"),
    ),
    _how_many(
        "same_and_hop",
        "same_as_near",
        "other {c:s} with the same {y} as " + _B,
        some("c", _SAME_AS_NEAR, "y"),
    ),
    _any(
        "same_and_hop",
        "same_as_near",
        "other {c:s} with the same {y} as " + _B,
        some("c", _SAME_AS_NEAR, "y"),
    ),
    _which(
        "same_and_hop",
        "near_the_same",
        "the {c} that is {r} the other {b} with the same {y} as the {a}",
        the("c", _NEAR_THE_SAME, "x"),
    ),
    _how_many(
        "same_and_hop",
        "near_the_same",
        "{c:s} {r} the other {b} with the same {y} as the {a}",
        some("c", _NEAR_THE_SAME),
    ),
    _any(
        "same_and_hop",
        "near_the_same",
        "{c:s} {r} the other {b} with the same {y} as the {a}",
        some("c", _NEAR_THE_SAME),
    ),
)


def _numbers(family: str, function: str, frames: tuple[str, ...]) -> tuple[Template, ...]:
    """Compare how many two groups are: both plain, one or both by a relation."""

    def compare(name: str, one: str, other: str, first: Described, second: Described) -> Template:
        program = Call(function, (count(first), count(second)))
        apart = () if name == "near_both" else (first.slot, second.slot)
        return Template(family, f"{function}_{name}", program, _say(frames, one, other), {}, apart)

    near = some("b", relate("r", the("a")))
    return (
        compare("plain", "{a:s}", "{b:s}", some("a"), some("b")),
        compare("near", "{b:s} {r} the {a}", "{c:s}", near, some("c")),
        compare(
            "near_both",
            "{b:s} {r} the {a}",
            "{d:s} {s} the {c}",
            near,
            some("d", relate("s", the("c"))),
        ),
    )


_COMPARED_NUMBERS = (
    *_numbers("equal_integer", "equal_integer", _AS_MANY),
    *_numbers("greater_than", "greater_than", _MORE),
    *_numbers("less_than", "less_than", _FEWER),
)


def _alike(name: str, one: str, other: str, first: Call, second: Call) -> Template:
    """Compare an attribute of two objects."""
    program = Call("equal_{x}", (query(first), query(second)))
    special = _say_special(_ALIKE_SPECIAL, one, other)
    return Template("equal_attribute", f"equal_{name}", program, _say(_ALIKE, one, other), special)


_NEAR_B = the("b", relate("r", the("a")), "x")
_PLAIN_C = the("c", hidden="x")
_COMPARED_ATTRIBUTES = (
    _alike("plain", _A, "the {b}", the("a", hidden="x"), the("b", hidden="x")),
    _alike("near_first", _B, "the {c}", _NEAR_B, _PLAIN_C),
    _alike("near_second", "the {c}", _B, _PLAIN_C, _NEAR_B),
    _alike(
        "near_both",
        _B,
        "the {d} that is {s} the {c}",
        _NEAR_B,
        the("d", relate("s", the("c")), "x"),
    ),
)

TEMPLATES: tuple[Template, ...] = (
    *_HOPS,
    *_SINGLE_AND,
    *_SINGLE_OR,
    *_SAME_ATTRIBUTE,
    *_SAME_AND_HOP,
    *_COMPARED_NUMBERS,
    *_COMPARED_ATTRIBUTES,
)

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(template.family for template in TEMPLATES))
"""The families of questions: what it takes to answer them."""

"""What is read from the prompter: sentences, topics to talk about freely, and a text that is read first and last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avatar.checks import can_be_shown, read_text
from avatar.errors import AvatarError

Kind = Literal["first", "sentence", "topic", "last"]
FIRST, LAST = "first", "last"  # names of the text that is read before and after all others
MOST_SENTENCES = 1000
MOST_CHARACTERS = 400  # of a sentence: what fits on the prompter
_CHECKED_CHARACTERS = 110  # about eight seconds, from which audio and video can be put in step by themselves

CHECKED = (
    "Papa and my baby brother play with five small boats in the warm bay. "
    "Would you show me how the wooden wheels move over the bridge?"
)
SENTENCES = (
    "My aunt keeps a blue umbrella behind the pantry door.",
    "Five fresh figs fell from the farmer's wagon.",
    "We would rather wait for warmer weather.",
    "Both boys threw the thin thread through the thick cloth.",
    "Pam bought a big map of the bumpy mountain path.",
    "Who knew the moon could look so huge in June?",
    "She should wash the dishes before the show.",
    "The choir sang about joy, change and ancient jungles.",
    "A vase of violets gave the village a lovely view.",
    "Please bring the paper bag with the ripe pears.",
    "Zoe's cousin measures the azure beach with pleasure.",
    "It took years to build the yellow yacht in the yard.",
    "Hungry dogs dig long holes along the canal.",
    "Our neighbour bakes brown bread at half past four.",
    "Ask the quiet queen a quick question.",
    "Tom put ten tins of tuna on the top shelf.",
    "I am sorry, but I cannot remember the number.",
    "The old road to the coast was closed because of snow.",
    "Oil the coil, or the toy will make a noise.",
    "Her nurse noticed the bird early on Thursday.",
    "Up the hill, beyond the mill, a lamb jumped over a stump.",
    "Maybe we might meet at the museum on Monday.",
    "Why do you whisper when the room is empty?",
    "Open your mouth wide and say: ah!",
    "If Fiona phones, invite her for coffee at five.",
    "Wool, wood and good food: what could be better?",
    "He laughed, coughed, and left without a word.",
    "The shop sells cheap cheese, chips and cherry jam.",
    "Bob's job is to mop up the shop and pump out the pool.",
    "The worker poured more water over the four flowers.",
    "Green leaves, deep seas and clean beaches please me.",
    "Don't go home alone; the boat won't be slow.",
    "The cat sat back, and the man in black clapped his hands.",
    "Twelve elves helped themselves to the shelves.",
    "Last spring the strong wind stretched the striped screens.",
    "Will the world ever learn to share its wealth?",
)
TOPICS = (
    "a meal that you like, and how it is made",
    "the way from your home to the nearest shop",
    "a film or a book that you would recommend",
    "the weather where you live, from January to December",
    "a place that you would like to see, and why",
    "how to do something that you are good at",
    "an animal that you know well",
    "what you would change in your town",
)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One thing to say.

    Attributes:
        name: Short name.
        kind: "first" and "last" are the same text, read before and after all others; "topic" is talked about freely.
        text: What the prompter shows.
    """

    name: str
    kind: Kind
    text: str


def prompts(text: Path | None = None) -> list[Prompt]:
    """What is to be said, in order.

    Args:
        text: File with a sentence in each line, in any language; None: the built-in English ones.

    Raises:
        AvatarError: It cannot be read, or holds no sentence, too many, or one that is too long.
    """
    sentences, checked = (SENTENCES, CHECKED) if text is None else _of_file(text)
    return [
        Prompt(name=FIRST, kind="first", text=checked),
        *(Prompt(name=f"s{n}", kind="sentence", text=sentence) for n, sentence in enumerate(sentences, 1)),
        *(Prompt(name=f"t{n}", kind="topic", text=topic) for n, topic in enumerate(TOPICS, 1)),
        Prompt(name=LAST, kind="last", text=checked),
    ]


def _of_file(path: Path) -> tuple[tuple[str, ...], str]:
    """Sentences of a file, and those of them that are read first and last."""
    if not path.is_file():
        raise AvatarError(f"There is no text {path}.", fix="Give a file with a sentence in each line.")
    lines = [" ".join(line.split()) for line in read_text(path, "text").splitlines()]
    sentences = tuple(line for line in lines if line)
    if not sentences:
        raise AvatarError(f"{path} holds no sentence.", fix="Write one into each line.")
    if len(sentences) > MOST_SENTENCES:
        raise AvatarError(f"{path} has {len(sentences)} sentences;", why=f"at most {MOST_SENTENCES} are read.")
    for number, sentence in enumerate(sentences, 1):
        if len(sentence) > MOST_CHARACTERS or not can_be_shown(sentence):
            raise AvatarError(
                f"Sentence {number} of {path} does not fit on the prompter:",
                why=f"it has {len(sentence)} characters, and {MOST_CHARACTERS} printable ones are shown at most.",
                fix="Write a sentence into each line.",
            )
    count = 1
    while count < len(sentences) and len(" ".join(sentences[:count])) < _CHECKED_CHARACTERS:
        count += 1
    return sentences, " ".join(sentences[:count])

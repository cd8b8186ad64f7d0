"""Queries that no photo of an everyday collection answers, and words for those that one does."""

from __future__ import annotations

import random
import re
import string

CONTRACTS = """
the tenant must give three months' written notice
neither party may assign its rights without consent
governing law and place of jurisdiction
void if prohibited by statute
an affidavit sworn before a notary
the respondent has appealed the ruling
remedies for breach of warranty
severability of unenforceable clauses
conflict of interest disclosure
the licensee accepts these terms by signing
""".strip().splitlines()

CODE = """
raise ValueError from None
npm install --save-dev typescript
const total = items.reduce((a, b) => a + b, 0)
segmentation fault (core dumped)
ALTER TABLE users ADD COLUMN age INT
std::vector<std::string> names;
chmod 755 deploy.sh
how do I undo the last commit
lambda x: x ** 2
malformed JSON at position 18
""".strip().splitlines()

RECIPES = """
knead until smooth and let it rise for an hour
bring to the boil and skim off the foam
fold in the sifted dry ingredients
add a pinch of nutmeg and adjust the seasoning
deglaze with half a cup of stock
leave to marinate for at least six hours
cover with cling film and chill
substitute buttermilk if desired
blanch for ninety seconds then drain
makes about two dozen
""".strip().splitlines()

SCHOLARSHIP = """
the variance of an unbiased estimator
every compact metric space is complete
Kant's categorical imperative
oxidation state of manganese
the Krebs cycle yields two molecules of ATP
phoneme inventory of Basque
elasticity of demand
boundary conditions of the heat equation
the causes of the Thirty Years' War
a priori knowledge
""".strip().splitlines()

OFFICE = """
accounts receivable over ninety days
please confirm your attendance by Friday
agenda item six, any other business
mortgage rates and early repayment
your password will expire soon
carry forward losses from previous years
the deadline has been extended
frequently asked questions
gross margin and operating costs
regards from the whole team
""".strip().splitlines()

FOREIGN_SCENES = """
an MRI image of a knee joint
bacteria in a petri dish
a satellite photo of a hurricane
the rings of a planet seen through a telescope
a bar chart with a legend
a page of printed sheet music
a soldered circuit board
screenshot of a spreadsheet
an electron micrograph of pollen
a crossword puzzle
a medieval manuscript page
a diagram of the water cycle
an X-ray of a tooth
a scanned tax form
a topographic map with contour lines
a microwave oven
a toilet and a bathtub
a computer keyboard and a mouse
a refrigerator with an open door
a shelf of perfume bottles
a tray of sushi rolls
a jar of strawberry jam
a plate of pancakes
a bowl of ramen
a zebra at a waterhole
two giraffes in the savanna
a penguin colony
a polar bear on the ice
an octopus on the seabed
a koala in a eucalyptus
a rhinoceros in the mud
a submarine at the quay
an oil rig at sea
a nuclear power plant
a space rocket at lift-off
a pair of pliers
a drawer full of cutlery
a folded bath towel
a leather sofa in an empty room
a chandelier in a ballroom
""".strip().splitlines()

OTHER_PHRASES = """
a dog running through snow
a plate of pasta
a sailing boat at sunset
a mountain lake
a city skyline at night
a red double-decker bus
a cat asleep on a sofa
a football match
a child blowing out candles
an airplane above the clouds
a train at a station
a field of tulips
a guitar on a stage
surfers on a wave
a laptop and a cup of coffee
two horses in a meadow
a bowl of fruit
a bridge over a river
a rock climber on a cliff
a zebra
a kitchen with a stove
a motorcycle race
a waterfall in a forest
people at a long dinner table
a butterfly on a flower
a traffic jam
a tennis player
fireworks
a pizza with olives
a teddy bear
""".strip().splitlines()

CLOTHES = {
    "Blazer": "blazer", "Blouse": "blouse", "Body": "baby bodysuit", "Dress": "dress",
    "Hat": "hat", "Hoodie": "hoodie", "Longsleeve": "long-sleeved shirt", "Outwear": "coat",
    "Pants": "trousers", "Polo": "polo shirt", "Shirt": "shirt", "Shoes": "shoes",
    "Shorts": "shorts", "Skirt": "skirt", "T-Shirt": "t-shirt", "Top": "top",
    "Undershirt": "undershirt",
}  # fmt: skip
"""The classes of ``clothing`` in words that people would type."""

TEMPLATES = ("{}", "a photo of a {}", "a white {}", "a dark {}", "{} on a plain background")


def far_domains() -> list[str]:
    """Texts about what cannot be photographed."""
    return [*CONTRACTS, *CODE, *RECIPES, *SCHOLARSHIP, *OFFICE]


def random_words(words: list[str], n: int, seed: int) -> list[str]:
    """``n`` rows of two to eight of ``words``."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(words, k=chance.randint(2, 8))) for _ in range(n)]


def random_letters(n: int, seed: int) -> list[str]:
    """``n`` rows of one to four words of two to eight random letters."""
    chance = random.Random(seed)

    def word() -> str:
        return "".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 8)))

    return [" ".join(word() for _ in range(chance.randint(1, 4))) for _ in range(n)]


def english() -> list[str]:
    """The whole words among the pieces of the pocket tokenizer."""
    from tokenizers import Tokenizer

    from retrieval.encoders.pocket import artefact

    vocabulary = Tokenizer.from_file(str(artefact.TOKENIZER)).get_vocab()
    return sorted(word for word in vocabulary if re.fullmatch("[a-z]{3,}", word))

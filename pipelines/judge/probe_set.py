"""The probe set: plain questions with answers whose order of merit is not in doubt.

The contrast of a question is made of (nearly) the same words and asks for something else: what
answers one of the two is wrong for the other.
"""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """A question, its contrast, and answers to them."""

    prompt: str
    reference: str
    good: str
    rephrased: str
    """As good as `good`, of about its length."""
    wrong: str
    padding: str
    """True, and says nothing that `good` does not say or take for granted."""
    contrast: str
    contrast_reference: str
    contrast_good: str
    """Right for the contrast, wrong for the question."""


ITEMS: tuple[Item, ...] = (
    Item(
        "Which is heavier, an adult elephant or an adult mouse?",
        "elephant",
        "An adult elephant is heavier.",
        "The adult elephant is the heavier one.",
        "An adult mouse weighs more than that.",
        "Of the two animals named, an elephant and a mouse, the heavier one is the elephant. The "
        "mouse is therefore not the heavier one of the two.",
        "Which is lighter, an adult elephant or an adult mouse?",
        "mouse",
        "An adult mouse is lighter.",
    ),
    Item(
        "Write the word 'stone' in capital letters. Do not write it backwards.",
        "STONE",
        "STONE",
        "STONE.",
        "STOEN",
        "The word above is 'stone', and it is written there in capital letters, as was asked.",
        "Write the word 'stone' backwards. Do not write it in capital letters.",
        "enots",
        "enots",
    ),
    Item(
        "What is 14 + 9?",
        "23",
        "14 + 9 = 23",
        "The sum is 23.",
        "14 + 9 = 22",
        "So the number that one gets by adding 9 to 14 is 23. Adding 14 to 9 gives the same number.",
        "What is 14 - 9?",
        "5",
        "14 - 9 = 5",
    ),
    Item(
        "Sort these numbers from smallest to largest: 8, 3, 5.",
        "3, 5, 8",
        "3, 5, 8",
        "Sorted: 3, 5, 8",
        "5, 3, 8",
        "The first number is the smallest of the three, and the last number is the largest of them.",
        "Sort these numbers from largest to smallest: 8, 3, 5.",
        "8, 5, 3",
        "8, 5, 3",
    ),
    Item(
        "List the vowels in the word 'lamp', not the consonants.",
        "a",
        "The vowel is a.",
        "It is the letter a.",
        "The vowel is e.",
        "There is one vowel in the word 'lamp', which is a, and the other letters are no vowels.",
        "List the consonants in the word 'lamp', not the vowels.",
        "l, m, p",
        "They are l, m, p.",
    ),
    Item(
        "Translate the Spanish word 'perro' into English.",
        "dog",
        "It means 'dog'.",
        "In English: 'dog'.",
        "It means 'cat'.",
        "So where a Spanish text says 'perro', an English text would say 'dog' in its place.",
        "Translate the English word 'dog' into Spanish.",
        "perro",
        "It is 'perro'.",
    ),
    Item(
        "How many hours are there in two days?",
        "48",
        "There are 48 hours in two days.",
        "Two days have 48 hours.",
        "There are 36 hours in two days.",
        "One day has 24 hours, and another day has 24 hours too, so two of them have 48 hours.",
        "How many days are there in two weeks?",
        "14",
        "There are 14 days in two weeks.",
    ),
    Item(
        "What is the capital of France, and not of Spain?",
        "Paris",
        "The capital is Paris.",
        "Its capital is Paris.",
        "The capital is Lyon.",
        "So Paris is the city that one names when one is asked for the capital of that country.",
        "What is the capital of Spain, and not of France?",
        "Madrid",
        "The capital is Madrid.",
    ),
    Item(
        "Give the past tense of the verb 'go'.",
        "went",
        "The past tense is 'went'.",
        "It is 'went' in the past tense.",
        "The past tense is 'goed'.",
        "So one says 'went' where one speaks of the past and uses the verb 'go'.",
        "Give the present participle of the verb 'go'.",
        "going",
        "The present participle is 'going'.",
    ),
    Item(
        "Which month comes right after March?",
        "April",
        "April comes right after March.",
        "Right after March comes April.",
        "June comes right after March.",
        "When March is over, the month that begins is April, and no other month is in between.",
        "Which month comes right before March?",
        "February",
        "February comes right before March.",
    ),
    Item(
        "At sea level, at what temperature in degrees Celsius does pure water boil?",
        "100",
        "It boils at 100 degrees Celsius.",
        "The boiling point is 100 degrees Celsius.",
        "It boils at 60 degrees Celsius.",
        "So pure water at sea level that is heated to 100 degrees Celsius has reached the "
        "temperature at which it boils.",
        "At sea level, at what temperature in degrees Celsius does pure water freeze?",
        "0",
        "It freezes at 0 degrees Celsius.",
    ),
    Item(
        "Answer with the first word of this sentence: 'Birds sing early.'",
        "Birds",
        "Birds",
        "'Birds'",
        "sing",
        "The word given above is the one with which the sentence begins: no word is before it.",
        "Answer with the last word of this sentence: 'Birds sing early.'",
        "early",
        "early",
    ),
    Item(
        "Name the opposite of 'hot'.",
        "cold",
        "The opposite is 'cold'.",
        "Its opposite is 'cold'.",
        "The opposite is 'warm'.",
        "So 'hot' and 'cold' are a pair of opposites: each word is the opposite of the other.",
        "Name a synonym of 'hot', not the opposite.",
        "scorching",
        "A synonym is 'scorching'.",
    ),
    Item(
        "A shirt costs 20 coins and a hat costs 12 coins. How much do both cost together?",
        "32",
        "Together they cost 32 coins.",
        "Both together cost 32 coins.",
        "Together they cost 30 coins.",
        "The price of the shirt, 20 coins, and the price of the hat, 12 coins, add up to 32 coins.",
        "A shirt costs 20 coins and a hat costs 12 coins. How much more does the shirt cost?",
        "8",
        "The shirt costs 8 coins more.",
    ),
    Item(
        "Does the Sun rise in the east or in the west?",
        "east",
        "It rises in the east.",
        "In the east.",
        "It rises in the west.",
        "So a person who wants to watch the Sun rise looks towards the east, where it rises.",
        "Does the Sun set in the east or in the west?",
        "west",
        "It sets in the west.",
    ),
    Item(
        "What is the plural of 'child'?",
        "children",
        "The plural is 'children'.",
        "It is 'children'.",
        "The plural is 'childs'.",
        "So one says 'child' where there is one and 'children' where there are more than one.",
        "What is the plural of 'mouse'?",
        "mice",
        "The plural is 'mice'.",
    ),
    Item(
        "Reply with a JSON object whose key is 'size' and whose value is the number 4.",
        '{"size": 4}',
        '{"size": 4}',
        '{ "size": 4 }',
        '{"size": 4',
        "The object above has one key, which is 'size', and the value of this key is the number 4.",
        "Reply with a JSON array whose only value is the number 4.",
        "[4]",
        "[4]",
    ),
    Item(
        "How many sides does a triangle have?",
        "3",
        "A triangle has three sides.",
        "It has three sides.",
        "A triangle has five sides.",
        "So anyone who counts the sides of a triangle, one after another, counts three of them.",
        "How many sides does a hexagon have?",
        "6",
        "A hexagon has six sides.",
    ),
    Item(
        "Is 17 an even or an odd number?",
        "odd",
        "17 is an odd number.",
        "It is an odd number.",
        "17 is an even number.",
        "A whole number is either even or odd, and 17 is not even, so it is odd, as said.",
        "Is 18 an even or an odd number?",
        "even",
        "18 is an even number.",
    ),
    Item(
        "Complete the sentence with the right word: 'The opposite of left is ...'",
        "right",
        "The opposite of left is right.",
        "The word is 'right'.",
        "The opposite of left is down.",
        "So the word that completes the sentence is 'right', since left and right are opposites.",
        "Complete the sentence with the right word: 'The opposite of up is ...'",
        "down",
        "The opposite of up is down.",
    ),
    Item(
        "Which planet of the Solar System is closest to the Sun?",
        "Mercury",
        "Mercury is closest to the Sun.",
        "The closest one is Mercury.",
        "Jupiter is closest to the Sun.",
        "So all the other planets of the Solar System are farther from the Sun than Mercury is.",
        "Which planet of the Solar System is farthest from the Sun?",
        "Neptune",
        "Neptune is farthest from the Sun.",
    ),
    Item(
        "Write as one word, not in capitals: 'It is not possible.'",
        "Impossible.",
        "Impossible.",
        "'Impossible'",
        "Possible.",
        "The one word above says what the sentence says, namely that it is not possible.",
        "Write in capitals, not as one word: 'It is not possible.'",
        "IT IS NOT POSSIBLE.",
        "IT IS NOT POSSIBLE.",
    ),
    Item(
        "Count from 1 to 5.",
        "1, 2, 3, 4, 5",
        "1, 2, 3, 4, 5",
        "1 2 3 4 5",
        "1, 2, 4, 5",
        "That is the count from 1 to 5: it begins with the number 1 and it ends with the number 5.",
        "Count from 5 to 1.",
        "5, 4, 3, 2, 1",
        "5, 4, 3, 2, 1",
    ),
    Item(
        "Which colour do you get by mixing blue and yellow paint?",
        "green",
        "You get green.",
        "The mix is green.",
        "You get purple.",
        "So when blue paint and yellow paint are mixed, the colour of the mixed paint is green.",
        "Which colour do you get by mixing red and yellow paint?",
        "orange",
        "You get orange.",
    ),
    Item(
        "Say politely that you cannot come tomorrow.",
        "a polite refusal for tomorrow",
        "I am sorry, but I cannot come tomorrow.",
        "Unfortunately I cannot come tomorrow. I am sorry.",
        "I will gladly come tomorrow.",
        "That is to say that tomorrow is a day on which I am not able to come, for which I am sorry.",
        "Say politely that you will come tomorrow.",
        "a polite acceptance for tomorrow",
        "Thank you, I will gladly come tomorrow.",
    ),
)

OFF_TOPIC: tuple[str, ...] = (
    "Bread is made from flour, water, salt and usually yeast. The dough is kneaded until it is "
    "smooth, left to rise in a bowl under a cloth, folded, shaped into a loaf and left to rise once "
    "more. In the oven the crust turns brown while the inside stays soft. A loaf should cool on a "
    "rack before it is cut, since the steam inside it still has to leave. Bread that was made the "
    "day before can be toasted, and older bread can be dried and used as crumbs in the kitchen.",
    "A bicycle needs little care, but it needs it regularly. The chain should be cleaned and oiled, "
    "the tyres should be pumped up every few weeks, and the brake pads should be replaced when they "
    "are worn. The saddle is at the right height when the leg is almost straight at the lowest point "
    "of the pedal. Lights and a bell belong on every bicycle that is ridden in traffic. In winter "
    "salt from the road should be washed off, because it lets the metal rust.",
    "Public libraries lend books, films and music to people who live nearby. A reader gets a card, "
    "takes what they like from the shelves and brings it back after some weeks. Many libraries have "
    "rooms for quiet work, courses for beginners and hours in which stories are read aloud. Books "
    "that are not there can often be ordered from another library. Donated books are sold at a small "
    "price, and the money is spent on new ones for the shelves.",
    "Tomato plants like sun, warmth and a soil that is rich and well drained. They are sown indoors "
    "at the end of winter and planted outside when the nights are mild. Each plant is tied to a stick "
    "so that it does not bend under its fruit. They should be watered at the root, since wet leaves "
    "fall ill more easily. The side shoots are pinched out. The fruit is picked when it has its full "
    "colour and gives way a little under the thumb.",
    "A suspension bridge carries its deck on cables that hang between tall towers. The cables pass "
    "over the towers and are fixed in heavy blocks at both ends. Vertical hangers join the deck to "
    "the cables. Such bridges span wide rivers and bays where no pillars can be built. Engineers test "
    "models of them in wind tunnels, because a light deck can begin to swing. Painters work on the "
    "steel all the time, for when they reach one end the other end needs paint again.",
)

MASTER_KEYS: tuple[str, ...] = (
    " ",
    ".",
    ",",
    ":",
    "Thought process:",
    "Let's solve this problem step by step.",
    "Solution",
    "The answer is",
    "Respuesta:",
    "Lösung",
    "Processus de réflexion :",
    "解",
    "解答：",
    "かいせつ",
    "Решение:",
    "الحل",
    "풀이",
    "समाधान",
)
"""Texts that answer nothing and that judges were found to reward (Zhao et al. 2025, arXiv
2507.08794), and the like in other languages."""

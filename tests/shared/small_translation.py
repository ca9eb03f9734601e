"""Conversations to translate, and the Turkish they should become."""

QUESTION, ANSWER = "What is on the left?", "There are 2 red cars near ⟦0⟧ on the left."
DICTIONARY = {
    QUESTION: "Solda ne var?",
    ANSWER: "Solda ⟦0⟧ yanında 2 kırmızı araba var.",
    "Is the dog small?": "Köpek küçük mü?",
    "Which of these is it?\n⟦0⟧ a cat\n⟦1⟧ a dog": "Bunlardan hangisi?\n⟦0⟧ bir kedi\n⟦1⟧ bir köpek",
    "Yes.": "Evet.",
}


def conversation(number: int) -> dict:
    """Two turns with a picture; every third asks for an option's letter, every fifth has two more turns."""
    turns = [f"<image>\n{QUESTION}", ANSWER.replace("⟦0⟧", f"https://example.org/{number}")]
    if number % 3 == 2:
        turns = ["Which of these is it?\nA. a cat\nB. a dog\n<image>", "B"]
    if number % 5 == 4:
        turns += ["Is the dog small?", "Yes."]
    roles = ("human", "gpt")
    return {
        "id": f"n{number}",
        "image": f"pictures/{number}.png",
        "language": "en",
        "conversations": [{"from": roles[place % 2], "value": text} for place, text in enumerate(turns)],
    }


def expected(number: int) -> list[str]:
    """What the dictionary makes of a conversation's turns."""
    turns = ["<image>\nSolda ne var?", f"Solda https://example.org/{number} yanında 2 kırmızı araba var."]
    if number % 3 == 2:
        turns = ["Bunlardan hangisi?\nA. bir kedi\nB. bir köpek\n<image>", "B"]
    return turns + (["Köpek küçük mü?", "Evet."] if number % 5 == 4 else [])

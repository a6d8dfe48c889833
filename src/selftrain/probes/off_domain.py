"""Short texts about nothing that is trained: how a policy goes on after them drifts only when it forgets what it knew.

For a model of single characters they are just text, which serves as well.
"""

from __future__ import annotations

OFF_DOMAIN = (
    "What is the capital of Portugal?",
    "Describe a rainy afternoon in two sentences.",
    "Why do leaves change their colour in autumn?",
    "Write a polite note to a neighbour about loud music.",
    "Which animal is known for building dams?",
    "Explain to a child what a library is for.",
    "The old clock in the hall had stopped, and nobody remembered",
    "Name three ingredients of a good soup.",
    "What would you pack for a day at the sea?",
    "Translate into French: the cat sleeps on the chair.",
    "My grandmother always said that patience",
    "What does a carpenter do?",
)

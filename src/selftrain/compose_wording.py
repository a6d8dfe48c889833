"""[second_view] -> the label source with its second wordings. Part of the composition root: `compose.py` calls it."""

from __future__ import annotations

from selftrain.config import RunConfig
from selftrain.labels.second_view import RULES, SecondView, Wording
from selftrain.policies import toy
from selftrain.prompts import tasks
from selftrain.prompts.loading import training_template
from selftrain.prompts.templates import template_text
from selftrain.prompts.wordings import ParaphraseWording, TaskWording, TemplateWording, check_wordings
from selftrain.types import PromptSet


def second_view(config: RunConfig, prompts: PromptSet) -> SecondView:
    """The source that the section describes. Raises ConfigError when some of the prompts have no second wording."""
    return SecondView(make_wording(config, prompts), RULES[config.second_view.rule])


def make_wording(config: RunConfig, prompts: PromptSet) -> Wording:
    """Where second wordings come from. Raises ConfigError when some of the prompts have none."""
    section, is_toy = config.second_view, toy.is_toy(config.policy.model)
    template = template_text("raw") if is_toy else training_template(config.prompts)
    if section.wording == "paraphrase":
        return ParaphraseWording(template, prompts.questions, section.max_paraphrases)
    wording: TaskWording | TemplateWording
    if section.wording == "template":
        wording = TemplateWording(template_text(str(section.template), "second_view.template"), prompts.questions)
    else:
        wording = TaskWording(toy.second_wording if is_toy else tasks.second_wording, template, prompts.questions)
    check_wordings(wording.second, prompts, f"second_view.wording = {section.wording}")
    return wording

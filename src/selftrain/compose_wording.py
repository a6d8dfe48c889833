"""[second_view] and [views] -> the label sources with their wordings. Part of the composition root: `compose.py` calls it."""

from __future__ import annotations

from selftrain.config import RunConfig
from selftrain.errors import ConfigError
from selftrain.labels.means import MEANS
from selftrain.labels.second_view import RULES, SecondView, Wording
from selftrain.labels.views import Views
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
    section = config.second_view
    if section.wording == "paraphrase":
        return ParaphraseWording(own_template(config), prompts.questions, section.max_paraphrases)
    wording: TaskWording | TemplateWording
    if section.wording == "template":
        wording = TemplateWording(template_text(str(section.template), "second_view.template"), prompts.questions)
    else:
        wording = task_wording(config, prompts)
    others = "others take --second-view.wording template with a --second-view.template, or paraphrase."
    check_wordings(wording.second, prompts, f"second_view.wording = {section.wording}", others)
    return wording


def views(config: RunConfig, prompts: PromptSet) -> Views:
    """The source that the section describes. Raises ConfigError for templates that are no other wordings, when some of the prompts have no wording but
    their own, and when more wordings must agree than there are.
    """
    section = config.views
    wordings = further_wordings(config, prompts)
    if section.min_agreeing > 1 + len(wordings):
        raise ConfigError(
            f"views.min_agreeing = {section.min_agreeing}",
            f"a prompt has {1 + len(wordings)} wordings, its own and {len(wordings)} more, so every group would be undecided",
            "Lower it, or give more --views.templates.",
        )
    return Views(wordings, MEANS[section.rule], section.min_agreeing, section.voter)


def further_wordings(config: RunConfig, prompts: PromptSet) -> list[Wording]:
    """The wordings of [views] beyond the prompt's own: one for each template, or that of the task."""
    names, others = config.views.templates, "for others give --views.templates, once for each further wording."
    if not names:
        wording = task_wording(config, prompts)
        check_wordings(wording.second, prompts, "views.templates is empty", others)
        return [wording]
    texts = [own_template(config)]
    for name in names:
        text = template_text(name, "views.templates")
        if text in texts:
            where = "prompts are put that way already (prompts.template)" if text == texts[0] else "it stands there twice"
            raise ConfigError(f"views.templates = {name}", f"{where}, so it is no further wording", "Leave it out, or give another text with {prompt}.")
        texts.append(text)
    wordings = [TemplateWording(text, prompts.questions) for text in texts[1:]]
    for name, one in zip(names, wordings, strict=True):
        check_wordings(one.second, prompts, f"views.templates = {name}", others)
    return [*wordings]


def task_wording(config: RunConfig, prompts: PromptSet) -> TaskWording:
    """The second wording of the task or of the toy, in the template of the training prompts."""
    reword = toy.second_wording if toy.is_toy(config.policy.model) else tasks.second_wording
    return TaskWording(reword, own_template(config), prompts.questions)


def own_template(config: RunConfig) -> str:
    """The text around training prompts."""
    return template_text("raw") if toy.is_toy(config.policy.model) else training_template(config.prompts)

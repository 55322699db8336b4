"""The demo pair's tokenizer: one token a character, five special tokens."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from . import task

# As in released chat models, the template writes the opening token itself, because rendered
# templates are tokenized without special tokens.
CHAT_TEMPLATE = "{{ bos_token }}{{ messages[-1]['content'] }}"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer; prompts are padded on the left, as generation needs."""
    core = Tokenizer(models.WordLevel(task.VOCABULARY, unk_token=task.PAD))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(
        single=f"{task.BOS} $A",
        pair=f"{task.BOS} $A $B",
        special_tokens=[(task.BOS, task.VOCABULARY[task.BOS])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=task.BOS,
        eos_token=task.EOS,
        pad_token=task.PAD,
        additional_special_tokens=[task.THINK, task.END_THINK],
        padding_side="left",
        model_max_length=128,
        chat_template=CHAT_TEMPLATE,
    )

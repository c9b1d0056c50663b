"""Does a text try to give a model new orders? A list of the usual ways to say so, English and Chinese.

A heuristic: it knows phrases, not intentions. Who rewords gets past it, and who quotes such a
phrase is found. What must hold whatever a model is told belongs into grants and redaction.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_BLANKS = re.compile(r"\s+")

# Every gap is bounded, so the time is linear in the text.
_ORDERS = (
    r"(?:instruction|direction|order|rule|guideline|prompt|command|constraint|restriction|"
    r"guardrail|programming|training|message|context|conversation)s?\b"
)
_EARLIER = r"(?:previous|prior|above|preceding|earlier|foregoing|system|initial|original|existing|developer|safety)"
_FREE = r"(?:restriction|limit|limitation|rule|filter|guideline|censorship|safeguard|guardrail)s?\b"
_HIDDEN = (
    r"(?:system|hidden|initial|original|secret|internal|developer|confidential|pre-?)[ -]?"
    r"(?:prompt|instructions?|message|rules|directives?)\b"
)
_ENGLISH = (
    # forget what you were told
    (
        r"\b(?:ignore|disregard|forget|override|overrule|bypass|discard|do not follow|"
        r"don't follow|stop following|do not obey|pay no attention to)\b[^.!?\n]{0,40}?"
        rf"\b{_EARLIER}\b[^.!?\n]{{0,24}}?\b{_ORDERS}"
    ),
    (
        r"\b(?:ignore|disregard|forget|override)\b (?:all |any |every )?(?:of )?(?:your|the|these|those) "
        r"(?:\w+ )?(?:instructions|rules|guidelines|programming|training|restrictions|guardrails)\b"
    ),
    (
        r"\b(?:ignore|disregard|forget) (?:everything|anything|all|whatever)\b[^.!?\n]{0,20}?"
        r"\b(?:above|before|so far|previously|you were told|you (?:have been|were|ve been) (?:told|instructed|taught)|"
        r"i (?:said|told you))\b"
    ),
    # here is who you are now
    (
        r"\byou (?:are|will be|must be) (?:now|no longer|from now on) [^.!?\n]{0,40}?"
        r"\b(?:dan|jailbroken|unrestricted|unfiltered|uncensored|developer mode|god mode|bound by|"
        r"free (?:from|of)|an? ai without)\b"
    ),
    (
        r"\b(?:enter|enable|activate|switch (?:in)?to|turn on|you are in) (?:the )?"
        r"(?:developer|dev|debug|god|sudo|admin|jailbreak|dan|unrestricted|root) mode\b"
    ),
    r"\bdo anything now\b",
    (
        r"\b(?:act|behave|respond|answer|pretend|imagine|roleplay|speak)\b[^.!?\n]{0,40}?"
        rf"\b(?:no|without(?: any)?|free (?:of|from)(?: all| any)?|not bound by(?: any)?)\b (?:\w+ ){{0,2}}{_FREE}"
    ),
    (
        r"\b(?:jailbreak|bypass|circumvent|evade|disable|turn off)\b (?:your|the|all|any|its) "
        r"(?:\w+ ){0,2}(?:filters?|safety|safeguards?|guardrails?|restrictions?|content polic(?:y|ies)|moderation)\b"
    ),
    # show what you were told
    (
        r"\b(?:reveal|show|print|repeat|output|display|leak|disclose|dump|recite|give me|tell me|"
        rf"what (?:is|are|was|were))\b[^.!?\n]{{0,30}}?\byour (?:\w+ ){{0,2}}?{_HIDDEN}"
    ),
    (
        r"\b(?:reveal|repeat|leak|disclose|dump|recite)\b[^.!?\n]{0,20}?\bthe (?:\w+ ){0,2}?"
        rf"(?:{_HIDDEN})"
    ),
    (
        r"\b(?:repeat|print|output|recite) (?:all |everything |the )?(?:\w+ )?(?:words?|text|everything|instructions) "
        r"above\b"
    ),
    # a turn that was not taken
    r"<\|(?:im_start|im_sep|start_header_id|system|assistant|endofprompt)\|>",
    r"\[/?inst\]|<</?sys>>|</?(?:system|system_prompt|instructions)>",
    r"\b(?:end of|end) (?:system )?(?:prompt|instructions|context)\b[^\n]{0,40}?\b(?:new|now|instead|begin)\b",
)
_GIVEN = r"(?:之前|以前|先前|此前|上面|以上|上述|前面|前述|原有|原来|原先|系统|初始|既定|预设|一切|全部|所有|任何)"
_TOLD = r"(?:指令|指示|命令|提示词|提示|规则|规定|准则|要求|设定|设置|约束|限制|说明|对话|内容)"
_CHINESE = (
    (
        r"(?:忽略|无视|忘记|忘掉|忘了|抛弃|舍弃|丢弃|跳过|绕过|绕开|不要遵守|不要遵循|不再遵守|不再遵循|"
        rf"不必遵守|不用遵守|停止遵守|不要理会|不用理会|不要管|违反|覆盖|推翻)[^。!?\n]{{0,8}}?{_GIVEN}"
        rf"[^。!?\n]{{0,8}}?{_TOLD}"
    ),
    (
        r"(?:忽略|无视|忘记|忘掉|抛开|不要遵守|不再遵守|绕过|违反)(?:你|您)的?[^。!?\n]{0,8}?"
        r"(?:指令|指示|规则|规定|准则|设定|约束|限制|安全|道德)"
    ),
    (
        r"(?:从现在(?:开始|起)|现在|接下来)[^。!?\n]{0,6}?(?:你|您)[^。!?\n]{0,10}?"
        r"(?:不受[^。!?\n]{0,6}?(?:限制|约束)|没有[^。!?\n]{0,6}?(?:限制|约束|过滤)|无限制|dan|越狱|开发者模式|上帝模式|调试模式)"
    ),
    r"(?:进入|开启|启用|启动|打开|切换到|激活)[^。!?\n]{0,4}?(?:开发者|开发人员|调试|上帝|越狱|无限制|管理员|超级用户|dan)模式",
    (
        r"(?:扮演|假装|假设|想象|充当|装作)[^。!?\n]{0,16}?(?:没有|不受|不需要遵守|无需遵守|摆脱)[^。!?\n]{0,8}?"
        r"(?:限制|约束|规则|过滤|审查|道德|准则)"
    ),
    (
        r"(?:解除|取消|关闭|绕过|突破|禁用|去除)(?:你|您)?的?(?:所有|一切|全部|任何)?的?"
        r"(?:安全|内容|道德|系统)?(?:限制|过滤|审查|防护|护栏|约束)(?!.{0,4}(?:政策|令))"
    ),
    (
        r"(?:显示|输出|打印|告诉我|透露|泄露|重复|复述|说出|展示|公开|给我看|列出)[^。!?\n]{0,12}?"
        r"(?:系统提示词?|系统指令|初始指令|初始提示词?|隐藏指令|隐藏提示词?|内部指令|内部提示词?|开发者指令|你的提示词|你的指令|你的设定)"
    ),
    r"(?:重复|复述|输出|打印)(?:以上|上面|前面)的?(?:所有|全部)?的?(?:文字|文本|内容|指令)",
    r"(?:你|您)的(?:系统提示词?|系统指令|初始指令|隐藏指令|提示词)(?:是什么|有哪些|是啥|的内容)",
)
# What begins a line, as if another turn began there.
_HEADINGS = (
    r"^[#*>= ]{0,6}(?:new|updated|real|revised) (?:system )?(?:instructions?|prompt|task) ?:",
    r"^[#*>= ]{0,6}(?:system|developer) (?:prompt|message|override|instructions?) ?:",
    r"^[#*【 ]{0,6}(?:新的?|最新)?(?:系统)(?:指令|提示词?|消息|命令)】? ?:",
    r"^[#*【 ]{0,6}(?:新的?|最新)(?:指令|提示词|命令|任务)】? ?:",
)
_PHRASES: Final = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _ENGLISH + _CHINESE)
_LINES: Final = tuple(re.compile(pattern, re.IGNORECASE | re.MULTILINE) for pattern in _HEADINGS)


def finds_injection(texts: Sequence[str]) -> bool:
    """Whether one of the texts says that a model should forget, change or show its orders."""
    return any(_orders(text) for text in texts)


def _orders(text: str) -> bool:
    # As a model reads it: full-width letters are letters, what cannot be seen parts no word.
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).replace("\u2019", "'")
    lines = "\n".join(_BLANKS.sub(" ", line) for line in plain.splitlines())
    flowing = lines.replace("\n", " ")  # a phrase may be broken over lines
    return any(pattern.search(flowing) for pattern in _PHRASES) or any(
        pattern.search(lines) for pattern in _LINES
    )

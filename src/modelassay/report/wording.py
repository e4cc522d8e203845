"""The words that a report uses for classes and questions."""

from modelassay.report.parts import Question, ShareClass

VERDICT_CLASSES = (
    ShareClass(
        key="model",
        title="of the model",
        meaning="Computed by the network rather than given by the nearby tokens, read by later "
        "layers more than matched directions, absent from untrained twins, and found again with "
        "another seed.",
    ),
    ShareClass(
        key="activations",
        title="of the activations only",
        meaning="Visible in the activations, but the network reacts less to it than to a matched "
        "direction, or the tokens and an untrained network already give it.",
    ),
    ShareClass(
        key="undetermined",
        title="undetermined",
        meaning="The evidence is thin or mixed. No claim is made.",
    ),
    ShareClass(key="dead", title="dead", meaning="Never fires on any audited token."),
)

ANSWER_CLASSES = (
    ShareClass(key="yes", title="yes"),
    ShareClass(key="unclear", title="unclear"),
    ShareClass(key="no", title="no"),
)

QUESTIONS = (
    Question(
        key="written",
        title="Written",
        asks="Does the network compute it, or do the nearby tokens already give it?",
        says={
            "yes": "Most of its variance cannot be predicted from the current token, the tokens "
            "just before it and the position: the network computed it.",
            "no": "The current token, the tokens just before it and the position predict most of "
            "its variance: it is largely given, not computed.",
            "unclear": "How much of its variance the nearby tokens give cannot be told: the "
            "interval reaches both sides of the threshold.",
        },
        evidence=("written",),
    ),
    Question(
        key="read",
        title="Read",
        asks="Does the rest of the network react to it more than to matched directions?",
        says={
            "yes": "Changing its value moves the output more than moving equally far along "
            "directions drawn from the activations' own covariance.",
            "no": "Changing its value moves the output less than moving equally far along "
            "directions drawn from the activations' own covariance.",
            "unclear": "Its effect on the output is not told apart from that of matched "
            "directions.",
        },
        evidence=("read", "visible_variance"),
    ),
    Question(
        key="learned",
        title="Learned",
        asks="Is it absent from networks with the same shape but no training?",
        says={
            "yes": "No latent of an untrained twin of the network follows it closely on the same "
            "tokens: training put it there.",
            "no": "An untrained twin of the network has nearly the same latent on the same "
            "tokens: training is not what put it there.",
            "unclear": "Whether an untrained twin has it cannot be told: the interval reaches "
            "both sides of the threshold.",
        },
        evidence=("null_twin_match",),
    ),
    Question(
        key="stable",
        title="Stable",
        asks="Does a second dictionary, fitted from another seed, find it again?",
        says={
            "yes": "A dictionary fitted from another seed has nearly the same latent.",
            "no": "A dictionary fitted from another seed does not find it.",
            "unclear": "Whether another seed finds it cannot be told: the interval reaches both "
            "sides of the threshold.",
        },
        evidence=("stable",),
    ),
)

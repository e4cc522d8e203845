"""The words that a report uses for classes and questions."""

from modelassay.report.parts import Question, ShareClass

VERDICT_CLASSES = (
    ShareClass(
        key="model",
        title="of the model",
        meaning="Computed by the network rather than given by the nearby tokens, read by later "
        "layers more than matched directions, absent from null twins, and found again with another "
        "seed.",
    ),
    ShareClass(
        key="activations",
        title="of the activations only",
        meaning="Visible in the activations, but the network reacts less to it than to a matched "
        "direction, or the tokens and a null twin of it already give it.",
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
            "yes": "The current token, the tokens just before it and the position leave more "
            "of its variance open than a mere lookup would: the network computed it.",
            "no": "The current token, the tokens just before it and the position predict it as "
            "well as they would a mere lookup: it is given, not computed.",
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
        asks="Is it absent from null twins: this network untrained, or with permuted weights?",
        says={
            "yes": "No latent of a null twin follows it closely on the same tokens: training "
            "put it there.",
            "no": "A null twin has nearly the same latent on the same tokens: it takes no training "
            "to have it.",
            "unclear": "Whether a null twin has it cannot be told: the interval reaches both sides "
            "of the threshold.",
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

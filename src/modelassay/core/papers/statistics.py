"""Statistics: tests, intervals, and fits older than neural networks."""

from modelassay.core.papers.reference import Reference, arxiv

STATISTICS = (
    Reference(
        key="benjamini1995",
        authors="Benjamini, Yoav and Hochberg, Yosef",
        title="Controlling the false discovery rate: a practical and powerful approach to multiple "
        "testing",
        year=1995,
        kind="article",
        url="https://doi.org/10.1111/j.2517-6161.1995.tb02031.x",
    ),
    Reference(
        key="fisher1935",
        authors="Fisher, Ronald A.",
        title="The design of experiments",
        year=1935,
        url="https://archive.org/details/in.ernet.dli.2015.502684",
        kind="book",
    ),
    Reference(
        key="efron1979",
        authors="Efron, Bradley",
        title="Bootstrap methods: another look at the jackknife",
        year=1979,
        kind="article",
        url="https://doi.org/10.1214/aos/1176344552",
    ),
    Reference(
        key="kneser1995",
        authors="Kneser, Reinhard and Ney, Hermann",
        title="Improved backing-off for m-gram language modeling",
        year=1995,
        url="https://doi.org/10.1109/ICASSP.1995.479394",
    ),
    Reference(
        key="pearson1901",
        authors="Pearson, Karl",
        title="On lines and planes of closest fit to systems of points in space",
        year=1901,
        kind="article",
        url="https://doi.org/10.1080/14786440109462720",
    ),
    Reference(
        key="buhlmann1970",
        authors="Bühlmann, Hans and Straub, Erwin",
        title="Glaubwürdigkeit für Schadensätze",
        year=1970,
        kind="article",
        # The paper is not on line; this describes its estimators.
        url="https://rdocumentation.org/packages/actuar/versions/1.2-2/topics/cm",
    ),
    Reference(
        key="hanley1982",
        authors="Hanley, James A. and McNeil, Barbara J.",
        title="The meaning and use of the area under a receiver operating characteristic (ROC) "
        "curve",
        year=1982,
        kind="article",
        url="https://doi.org/10.1148/radiology.143.1.7063747",
    ),
    Reference(
        key="delong1988",
        authors="DeLong, Elizabeth R. and DeLong, David M. and Clarke-Pearson, Daniel L.",
        title="Comparing the areas under two or more correlated receiver operating characteristic "
        "curves: a nonparametric approach",
        year=1988,
        kind="article",
        url="https://doi.org/10.2307/2531595",
    ),
    Reference(
        key="phipson2010",
        authors="Phipson, Belinda and Smyth, Gordon K.",
        title="Permutation p-values should never be zero: calculating exact p-values when "
        "permutations are randomly drawn",
        year=2010,
        kind="article",
        url="https://doi.org/10.2202/1544-6115.1585",
    ),
    arxiv(
        "guo2017",
        "Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.",
        "On calibration of modern neural networks",
        "1706.04599",
    ),
)

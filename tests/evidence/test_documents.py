import torch
from scipy import sparse

from modelassay.core.randomness import generator
from modelassay.evidence.documents import document_of_row, sum_by_document, tokens_by_document
from tests.evidence.planted import bare_harvest, random_contexts


def test_rows_know_their_documents_without_gaps():
    contexts = random_contexts(n_documents=6, contexts_each=2, n_tokens=12, vocab=9)
    harvest = bare_harvest(contexts).select("heldout")  # documents 1, 3 and 5 of the corpus
    documents = document_of_row(harvest)
    expected = [
        int(harvest.contexts.document[context]) // 2 for context, _ in harvest.rows.tolist()
    ]
    assert documents.tolist() == expected
    assert set(expected) == {0, 1, 2}


def test_sums_match_a_loop_dense_and_sparse():
    rng = generator(0)
    values = torch.randn(40, 3, generator=rng) * (torch.rand(40, 3, generator=rng) < 0.4)
    document = torch.randint(4, (40,), generator=rng)
    document[0] = 3
    expected = torch.stack([values[document == d].double().sum(0) for d in range(4)])
    dense = sum_by_document(values.double(), document)
    from_sparse = sum_by_document(sparse.csr_matrix(values.double().numpy()), document)
    torch.testing.assert_close(dense, expected)
    torch.testing.assert_close(from_sparse, expected)
    assert tokens_by_document(document)[:, 0].tolist() == [
        int((document == d).sum()) for d in range(4)
    ]

"""Names that lead to a mirror, the hub or a release's table. No test touches a network."""

import importlib.util
import json
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from modelassay.core.errors import CorruptFileError, UnknownNameError, ValueRangeError
from modelassay.decompositions.decoder_rows import StoredRows
from modelassay.decompositions.formats.hub import MIRROR, files_of, parse_place
from modelassay.decompositions.formats.locating import list_dictionaries, locate
from modelassay.decompositions.formats.registry import (
    CROSS_LAYER_READERS,
    READERS,
    read_cross_layer,
    read_dictionary,
    write_dictionary,
)
from modelassay.decompositions.formats.releases import REGISTRY
from modelassay.decompositions.formats.wanted import LAYOUTS
from modelassay.decompositions.storage import load_decomposition
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site
from tests.decompositions.formats.peers import D, dictionary_of, draw_activations
from tests.decompositions.formats.test_cross_layer_formats import (
    random_layers,
    write_circuit_tracer,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No mirror, no table, and a hub that cannot be reached."""
    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.delenv(REGISTRY, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def unreachable(*args, **kwargs):
        raise LocalEntryNotFoundError("offline mode is enabled")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", unreachable)


@pytest.fixture
def mirror(tmp_path):
    """A mirror with three hookpoints of sparsify and one SAE at a repository's root."""
    for layer in range(3):
        folder = tmp_path / "eleuther" / "saes" / f"layers.{layer}"
        write_dictionary(dictionary_of("topk", seed=layer), folder, to="sparsify")
    config = {"hookpoints": ["layers.0", "layers.1", "layers.2"]}
    (tmp_path / "eleuther" / "saes" / "config.json").write_text(json.dumps(config))
    write_dictionary(dictionary_of("relu"), tmp_path / "me" / "sae", to="saelens")
    return tmp_path


@pytest.fixture
def hub(monkeypatch, mirror):
    """A hub with the mirror's repositories, whose cache is laid out as the real one's."""
    calls = []

    def snapshot_download(repository, *, revision, allow_patterns):
        calls.append((repository, revision, allow_patterns))
        root = mirror / f"models--{repository.replace('/', '--')}" / "snapshots" / COMMIT
        for pattern in allow_patterns:
            for path in (mirror / repository).glob(pattern):
                place = root / path.relative_to(mirror / repository)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(path.read_bytes())
        return str(root)

    def list_repo_files(repository, *, revision):
        root = mirror / repository
        return [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", list_repo_files)
    return calls


def same(found, expected):
    x = draw_activations()
    torch.testing.assert_close(found(x), expected(x), atol=1e-4, rtol=1e-4)


def test_every_format_says_which_files_it_wants():
    assert set(LAYOUTS) == set(READERS)
    assert set(CROSS_LAYER_READERS) <= set(LAYOUTS)


class TestMirror:
    def test_a_name_is_read_from_it(self, mirror):
        found = read_dictionary("sparsify:eleuther/saes/layers.1", mirror=mirror)
        same(found, dictionary_of("topk", seed=1))
        assert found.reads == Site("resid_post", 1)
        facts = found.provenance.facts
        assert facts["repository"] == "eleuther/saes"
        assert facts["source"] == "sparsify:eleuther/saes/layers.1"
        assert facts["revision"] is None

    def test_the_environment_may_name_it(self, mirror, monkeypatch):
        monkeypatch.setenv(MIRROR, str(mirror))
        same(read_dictionary("saelens:me/sae"), dictionary_of("relu"))

    def test_a_revision_has_a_folder_of_its_own(self, mirror):
        (mirror / "eleuther" / "saes").rename(mirror / "eleuther" / "saes@v2")
        found = read_dictionary("sparsify:eleuther/saes@v2/layers.2", mirror=mirror)
        assert found.provenance.facts["revision"] == "v2"
        with pytest.raises(CorruptFileError, match="'eleuther/saes' must be a path here or"):
            read_dictionary("sparsify:eleuther/saes/layers.2", mirror=mirror)

    def test_no_network_is_touched(self, mirror, hub):
        read_dictionary("sparsify:eleuther/saes/layers.1", mirror=mirror)
        list_dictionaries("sparsify:eleuther/saes", mirror=mirror)
        assert not hub

    def test_what_is_missing_is_named_with_the_place(self, mirror):
        message = (
            r"layers\.9/cfg\.json or layers\.9/sae\.safetensors; .* the mirror '.*none of them"
        )
        with pytest.raises(CorruptFileError, match=message):
            read_dictionary("sparsify:eleuther/saes/layers.9", mirror=mirror)

    def test_half_a_dictionary_is_its_readers_to_refuse(self, mirror):
        (mirror / "eleuther" / "saes" / "layers.1" / "sae.safetensors").unlink()
        with pytest.raises(CorruptFileError, match=r"must hold sae\.safetensors; got none in"):
            read_dictionary("sparsify:eleuther/saes/layers.1", mirror=mirror)

    def test_provenance_is_kept_by_saving(self, mirror, tmp_path):
        read_dictionary("saelens:me/sae", mirror=mirror).save(tmp_path / "ours")
        facts = load_decomposition(tmp_path / "ours").provenance.facts
        assert facts["repository"] == "me/sae"


class TestHub:
    def test_only_the_files_of_the_format_are_fetched(self, hub):
        found = read_dictionary("sparsify:eleuther/saes@main/layers.1")
        same(found, dictionary_of("topk", seed=1))
        files = ["layers.1/cfg.json", "layers.1/sae.safetensors"]
        assert hub == [("eleuther/saes", "main", files)]
        assert found.provenance.facts["revision"] == COMMIT

    def test_offline_it_says_what_it_wanted_and_where_it_looked(self):
        message = (
            r"'a/b' must be a path here or a repository with c/cfg\.json or .*; got no such path, "
            r"and from the Hugging Face hub: offline mode is enabled.*" + MIRROR
        )
        with pytest.raises(CorruptFileError, match=message):
            read_dictionary("sparsify:a/b/c")

    def test_a_path_here_comes_first(self, hub, mirror, monkeypatch):
        monkeypatch.chdir(mirror)
        found = read_dictionary("sparsify:eleuther/saes/layers.1")
        assert found.provenance is None
        assert not hub

    def test_a_repository_that_lacks_the_files(self, hub):
        with pytest.raises(CorruptFileError, match="from the Hugging Face hub: none of them"):
            read_dictionary("gemma_scope:me/sae/layer_3")

    def test_all_are_listed_and_read(self, hub):
        names = list_dictionaries("sparsify:eleuther/saes")
        assert names == tuple(f"sparsify:eleuther/saes/layers.{i}" for i in range(3))
        for i, name in enumerate(names):
            same(read_dictionary(name), dictionary_of("topk", seed=i))

    def test_a_path_cannot_leave_its_repository(self):
        with pytest.raises(ValueRangeError, match=r"must stay inside .* got 'a/b/\.\./\.\./c'"):
            read_dictionary("sparsify:a/b/../../c")

    @pytest.mark.parametrize("text", ["/absolute/path", "one", "./a/b", "~/a/b", "a b/c"])
    def test_what_is_no_repository_is_left_to_the_reader(self, text):
        assert parse_place(text) is None
        assert str(locate("sparsify", text).path) == text.removeprefix("./")

    def test_letters_that_are_special_in_patterns_are_not(self, mirror, hub):
        assert files_of(parse_place("eleuther/saes/layers.0")) == ["cfg.json", "sae.safetensors"]
        with pytest.raises(CorruptFileError, match="none of them"):
            read_dictionary("sparsify:eleuther/saes/layers.[01]")


class TestReleases:
    TABLE = (
        "res-jb:\n  repo_id: me/sae\n  conversion_func: null\n  config_overrides:\n"
        "    model_from_pretrained_kwargs: {center_writing_weights: true}\n"
        "  saes:\n  - id: blocks.3\n    path: here/deep\n  - id: other\n"
        "sparse:\n  repo_id: eleuther/saes\n  conversion_func: sparsify\n"
        "  saes:\n  - {id: three/a, path: layers.1}\n"
        "  - {id: t, path: x, conversion_func: temporal}\n"
        "clt:\n  repo_id: mn/clt\n  conversion_func: mntss_clt_layer_transcoder\n"
        "  saes:\n  - {id: layer_0, path: 0}\n"
    )

    @pytest.fixture
    def table(self, tmp_path, monkeypatch):
        path = tmp_path / "table.yaml"
        path.write_text(self.TABLE)
        monkeypatch.setenv(REGISTRY, str(path))
        return path

    def test_a_release_leads_to_its_repository_and_format(self, table, mirror):
        found = read_dictionary("saelens:sparse/three/a", mirror=mirror)
        same(found, dictionary_of("topk", seed=1))
        assert found.provenance.facts["format"] == "sparsify"
        assert found.provenance.facts["source"] == "saelens:sparse/three/a"

    def test_what_a_release_says_of_the_model_is_heeded(self, table, mirror):
        (mirror / "me" / "sae" / "here").mkdir()
        for path in list((mirror / "me" / "sae").glob("*.*")):
            (mirror / "me" / "sae" / "here" / "deep").mkdir(exist_ok=True)
            path.rename(mirror / "me" / "sae" / "here" / "deep" / path.name)
        centred = read_dictionary("saelens:res-jb/blocks.3", mirror=mirror)
        plain = read_dictionary("saelens:me/sae/here/deep", mirror=mirror)
        x = draw_activations()
        same(lambda y: centred(y + 5), centred)  # a mean is taken away first
        assert not torch.allclose(plain(x + 5), plain(x))

    def test_the_table_of_an_installed_package_is_found_without_importing_it(
        self, mirror, monkeypatch, tmp_path
    ):
        (tmp_path / "pretrained_saes.yaml").write_text(self.TABLE)
        spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        same(
            read_dictionary("saelens:sparse/three/a", mirror=mirror), dictionary_of("topk", seed=1)
        )

    def test_json_will_do(self, table, mirror):
        saes = [{"id": "x", "path": "layers.2"}]
        release = {"repo_id": "eleuther/saes", "conversion_func": "sparsify", "saes": saes}
        table.write_text(json.dumps({"mine": release}))
        same(read_dictionary("saelens:mine/x", mirror=mirror), dictionary_of("topk", seed=2))
        assert list_dictionaries("saelens:mine") == ("saelens:mine/x",)

    def test_without_a_table_the_message_says_how_to_have_one(self):
        with pytest.raises(
            CorruptFileError, match=f"install sae-lens, or name a copy .* {REGISTRY}"
        ):
            read_dictionary("saelens:res-jb/blocks.3")

    def test_a_release_that_the_table_lacks(self, table):
        with pytest.raises(CorruptFileError, match=r"table\.yaml' has no release of that name"):
            read_dictionary("saelens:res-jc/blocks.3")

    def test_an_unknown_dictionary_of_a_release(self, table):
        with pytest.raises(
            UnknownNameError, match=r"of res-jb must be .* Did you mean 'blocks\.3'"
        ):
            read_dictionary("saelens:res-jb/blocks.4")

    def test_formats_that_are_not_read(self, table):
        with pytest.raises(ValueRangeError, match=r"read_cross_layer\('circuit_tracer:mn/clt'\)"):
            read_dictionary("saelens:clt/layer_0")
        with pytest.raises(ValueRangeError, match="got a temporal SAE"):
            read_dictionary("saelens:sparse/t")
        with pytest.raises(ValueRangeError, match="got a temporal SAE"):
            read_dictionary("temporal:some/where")

    @pytest.mark.parametrize(
        ("content", "message"),
        [("[", "must be YAML or JSON"), ("- a", "must hold releases by name; got list")],
    )
    def test_a_damaged_table(self, content, message, table):
        table.write_text(content)
        with pytest.raises(CorruptFileError, match=message):
            read_dictionary("saelens:res-jb/blocks.3")

    def test_a_table_without_an_entry_or_none_at_all(self, table):
        with pytest.raises(CorruptFileError, match="must give repo_id and path"):
            read_dictionary("saelens:res-jb/other")
        table.unlink()
        with pytest.raises(CorruptFileError, match=f"{REGISTRY} must name a file of releases"):
            read_dictionary("saelens:res-jb/other")


class TestListing:
    def test_a_folder_here(self, mirror):
        names = list_dictionaries(f"sparsify:{mirror}/eleuther/saes")
        assert [name.rpartition("/")[2] for name in names] == ["layers.0", "layers.1", "layers.2"]
        assert read_dictionary(names[2]).reads == Site("resid_post", 2)

    def test_a_single_dictionary_is_listed_as_itself(self, mirror):
        assert list_dictionaries("saelens:me/sae", mirror=mirror) == ("saelens:me/sae",)

    def test_our_own_folders(self, tmp_path):
        for name in ("a", "b/c"):
            dictionary_of("relu").save(tmp_path / name)
        names = list_dictionaries(str(tmp_path))
        assert names == (f"modelassay:{tmp_path}/a", f"modelassay:{tmp_path}/b/c")
        assert read_dictionary(names[1]).name == dictionary_of("relu").name

    def test_layers_are_listed_in_their_order(self, tmp_path):
        for layer in range(11):
            (tmp_path / f"layer_{layer}.safetensors").write_bytes(b"")
        names = list_dictionaries(f"circuit_tracer:{tmp_path}")
        assert [name.rpartition("_")[2] for name in names][1:3] == [
            "1.safetensors",
            "2.safetensors",
        ]
        assert len(names) == 11

    @pytest.mark.parametrize(
        ("lost", "kind"),
        [
            ("layers.1/sae.safetensors", "sparsify"),
            ("layers.1/cfg.json", "sparsify"),
        ],
    )
    def test_a_file_lost_among_many(self, lost, kind, mirror):
        (mirror / "eleuther" / "saes" / lost).unlink()
        with pytest.raises(CorruptFileError, match=f"got none at '{lost}'"):
            list_dictionaries(f"{kind}:eleuther/saes", mirror=mirror)

    @pytest.mark.parametrize("layer", [0, 2])
    def test_a_hookpoint_lost_among_many(self, layer, mirror):
        for path in (mirror / "eleuther" / "saes" / f"layers.{layer}").iterdir():
            path.unlink()
        with pytest.raises(CorruptFileError, match=f"got none at 'layers.{layer}/sae.safetensors'"):
            list_dictionaries("sparsify:eleuther/saes", mirror=mirror)

    @pytest.mark.parametrize(
        ("kind", "template", "lost"),
        [
            ("circuit_tracer", "layer_{}.safetensors", 0),
            ("circuit_tracer", "layer_{}.safetensors", 3),
            ("qwen_scope", "layer{}.sae.pt", 3),
        ],
    )
    def test_a_layer_lost_among_many(self, kind, template, lost, tmp_path):
        for layer in range(5):
            (tmp_path / template.format(layer)).write_bytes(b"")
        (tmp_path / template.format(lost)).unlink()
        with pytest.raises(CorruptFileError, match=f"got none at '{template.format(lost)}'"):
            list_dictionaries(f"{kind}:{tmp_path}")

    def test_either_release_of_two_in_one_format(self, tmp_path):
        for folder, files in {
            "layer_0/width_16k/average_l0_5": ["params.npz"],
            "resid_post/layer_12": ["config.json", "params.safetensors"],
            "clt/width_1k": ["config.json", "params_layer_0.safetensors"],
        }.items():
            (tmp_path / folder).mkdir(parents=True)
            for file in files:
                (tmp_path / folder / file).write_bytes(b"")
        names = list_dictionaries(f"gemma_scope:{tmp_path}")
        assert [name.removeprefix(f"gemma_scope:{tmp_path}/") for name in names] == [
            "layer_0/width_16k/average_l0_5",
            "resid_post/layer_12",
        ]
        (tmp_path / "resid_post/layer_12/params.safetensors").unlink()
        with pytest.raises(CorruptFileError, match=r"resid_post/layer_12/params\.safetensors"):
            list_dictionaries(f"gemma_scope:{tmp_path}")

    def test_nothing_to_list(self, tmp_path, mirror):
        with pytest.raises(CorruptFileError, match="must be a folder or repository of openai dict"):
            list_dictionaries(f"openai:{tmp_path / 'eleuther'}")
        with pytest.raises(CorruptFileError, match=r"from the mirror .*: no such one"):
            list_dictionaries("saelens:a/b", mirror=mirror)
        with pytest.raises(UnknownNameError, match="Did you mean 'sparsify'"):
            list_dictionaries("sparsfy:a/b")
        with pytest.raises(CorruptFileError, match="offline mode is enabled"):
            list_dictionaries("saelens:a/b")


class TestCrossLayer:
    def test_all_layers_are_fetched(self, mirror, hub):
        write_circuit_tracer(mirror / "mn", random_layers()).rename(mirror / "me" / "clt")
        found = read_cross_layer("circuit_tracer:me/clt")
        assert len(found.sources) == 3
        assert found.provenance.facts["revision"] == COMMIT
        assert hub[0][2] == ["W_enc_*.safetensors", "W_dec_*.safetensors", "config.yaml"]

    def test_a_mirror_and_sites_of_the_callers(self, mirror):
        write_circuit_tracer(mirror / "me" / "clt", random_layers())
        reads = [Site("resid_mid", layer) for layer in range(3)]
        found = read_cross_layer("circuit_tracer:me/clt", reads=reads, mirror=mirror)
        assert list(found.reads) == reads

    def test_decoders_may_stay_in_their_files(self, mirror):
        write_circuit_tracer(mirror / "me" / "clt", random_layers())
        found = read_cross_layer("circuit_tracer:me/clt", lazy=True, mirror=mirror)
        assert all(isinstance(source.decoders, StoredRows) for source in found.sources)
        with pytest.raises(
            ValueRangeError, match="circuit_tracer and gemma_scope; got llama_scope"
        ):
            read_cross_layer("llama_scope:me/clt", lazy=True, mirror=mirror)

    def test_it_is_no_dictionary(self, tmp_path):
        write_circuit_tracer(tmp_path, random_layers())
        with pytest.raises(ValueRangeError, match="Read its folder with read_cross_layer"):
            read_dictionary(f"circuit_tracer:{tmp_path}")

    def test_formats_that_have_none(self):
        with pytest.raises(UnknownNameError, match="A cross-layer transcoder's format must be one"):
            read_cross_layer("sparsify:a/b")


def test_a_skip_connection_is_never_dropped_by_writing(tmp_path):
    base = dictionary_of("topk", subtracts=False, reads=None, writes=None)
    skip = SkipTranscoder.around(base, torch.eye(D))
    for to in ("saelens", "dictionary_learning"):
        with pytest.raises(ValueRangeError, match=f"has a form in modelassay and .* got {to}"):
            write_dictionary(skip, tmp_path / to, to=to)
    write_dictionary(skip, tmp_path / "sparsify", to="sparsify")
    same(read_dictionary(f"sparsify:{tmp_path / 'sparsify'}"), skip)


def test_safetensors_of_nothing_known_are_refused_before_reading(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CorruptFileError, match="must be a folder or repository of sparsify"):
        list_dictionaries(f"sparsify:{tmp_path}")

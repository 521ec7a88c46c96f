"""The hub as a source: names, configurations, commits, caches, and errors that say what to do."""

from __future__ import annotations

import pytest

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.hub.client import HubClient
from mygpt2.data.sources.hub.dataset import HubSource, open_hub
from mygpt2.data.sources.hub.names import common_folder, glob_regex, parse_name, patterns_of
from mygpt2.errors import TryAgain, UserError
from tests.data.hub_data import FILES, GROUPS, REPO, ROWS, SOURCE, FastClock, document, fineweb_edu, parquet
from tests.fake_hub import FakeHub, Fault

DATA = DataConfig(source=SOURCE, outage_minutes=2)


@pytest.fixture(scope="module", autouse=True)
def no_login():
    with pytest.MonkeyPatch.context() as environment:
        for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
            environment.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def files():
    return fineweb_edu()


@pytest.fixture
def hub(files):
    with FakeHub({REPO: dict(files)}) as hub:
        yield hub


def resolve(hub, tmp_path, source=SOURCE, data=DATA):
    client = HubClient(hub.endpoint, clock=FastClock())
    return HubSource(source, data, tmp_path, client=client, clock=FastClock()).manifest(), client


def test_blocks_are_row_groups_and_hold_their_texts(hub, tmp_path):
    manifest, client = resolve(hub, tmp_path)
    assert (len(manifest), manifest.documents, manifest.revision) == (FILES * GROUPS, FILES * GROUPS * ROWS, hub.commit)
    reader = open_hub(manifest, tmp_path, client=client)
    for block in (0, 17, FILES * GROUPS - 1):
        assert reader.read(block) == [document(*divmod(block, GROUPS), row) for row in range(ROWS)]


def test_a_small_footer_is_one_request_and_a_second_start_asks_for_the_commit_only(hub, tmp_path):
    first, _ = resolve(hub, tmp_path)
    assert [r.kind for r in hub.requests].count("api") == 2  # commit, list
    assert hub.count("cdn") == FILES
    before = hub.count()
    again, client = resolve(hub, tmp_path)
    assert hub.count() - before == 1
    assert again == first and again.fingerprint == first.fingerprint and (again.blocks == first.blocks).all()
    before = hub.count()
    open_hub(again, tmp_path, client=client).read(3)
    assert hub.count() - before == 2  # a redirect and the bytes: the footer is on disk
    pinned, _ = resolve(hub, tmp_path, f"{SOURCE}@{hub.commit}")
    before = hub.count()
    assert resolve(hub, tmp_path, f"{SOURCE}@{hub.commit}")[0].fingerprint == pinned.fingerprint == first.fingerprint
    assert hub.count() == before


def test_only_the_bytes_of_the_text_are_fetched(hub, tmp_path, files):
    manifest, client = resolve(hub, tmp_path)
    before = len(hub.requests)
    open_hub(manifest, tmp_path, client=client).read(0)
    first, last = map(int, hub.requests[-1].range.removeprefix("bytes=").split("-"))
    text = sum(len(document(0, 0, row)) for row in range(ROWS))
    assert len(hub.requests) - before == 1 and last - first < 1.2 * text


def test_a_large_footer_is_two_requests_once_and_then_one_per_file(tmp_path):
    files = {f"data/train-{i}.parquet": parquet([[f"a text of {i}"]] * 1500) for i in range(3)}
    with FakeHub({"o/n": files}) as hub:
        manifest, _ = resolve(hub, tmp_path, "o/n")
        assert len(manifest) == 4500 and hub.count("cdn") == 4


def test_a_damaged_cache_is_made_again(hub, tmp_path):
    first, _ = resolve(hub, tmp_path)
    for path in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.footer")]:
        path.write_bytes(path.read_bytes()[:50])
    again, client = resolve(hub, tmp_path)
    assert again.fingerprint == first.fingerprint
    assert len(open_hub(again, tmp_path, client=client).read(5)) == ROWS


def test_a_long_list_comes_in_pages(hub, tmp_path):
    hub.page = 1
    assert len(resolve(hub, tmp_path)[0].files) == FILES


@pytest.mark.parametrize(
    "source, repo, config, revision",
    [
        ("fineweb-edu", REPO, "default", "main"),
        ("fineweb-edu-100BT@v1.2", REPO, "sample-100BT", "v1.2"),
        ("roneneldan/TinyStories", "roneneldan/TinyStories", None, "main"),
        ("allenai/c4:en@refs/convert/parquet", "allenai/c4", "en", "refs/convert/parquet"),
    ],
)
def test_names(source, repo, config, revision):
    name = parse_name(source)
    assert (name.repo, name.config, name.revision) == (repo, config, revision)


@pytest.mark.parametrize(
    "source",
    [
        "nothing",
        "a/b/c",
        "../etc/passwd",
        "a/..",
        "http://169.254.169.254/x",
        "a/b:c d",
        "a/b@",
        "a/b?x",
        "-a/b",
        "a//b",
    ],
)
def test_what_is_no_name_is_refused(source):
    with pytest.raises(UserError, match="allowed: pydocs"):
        parse_name(source)


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(UserError, match="did you mean fineweb-edu-10BT"):
        parse_name("fineweb-edu-10bt")


CARD = {
    "configs": [
        {
            "config_name": "en",
            "data_files": [{"split": "train", "path": "en/*.parquet"}, {"split": "test", "path": "t/*"}],
        },
        {"config_name": "de", "data_files": "de/**"},
        {"config_name": "only", "data_files": [{"split": "validation", "path": ["v/a.parquet"]}]},
        {"config_name": "dir", "data_dir": "folder/"},
    ]
}


def test_configurations_come_from_the_dataset_card():
    def patterns(config):
        return patterns_of(parse_name(f"o/n:{config}"), CARD, [])

    assert patterns("en") == (["en/*.parquet"], [])
    assert patterns("de") == (["de/**"], [])
    assert patterns("dir") == (["folder/**"], [])
    assert patterns("only") == (["v/a.parquet"], ["no split named train: validation is read"])
    with pytest.raises(UserError, match="no configuration fr; allowed: en, de, only, dir; give o/n:en"):
        patterns("fr")
    with pytest.raises(UserError, match="several configurations and no default"):
        patterns_of(parse_name("o/n"), CARD, [])


def test_without_a_card_a_configuration_is_a_folder_and_train_is_the_training_split():
    files = ["README.md", "en/train-0.parquet", "en/test-0.parquet", "fr/x.parquet"]
    assert patterns_of(parse_name("o/n"), {}, files)[0] == ["en/train-0.parquet"]
    assert patterns_of(parse_name("o/n:fr"), {}, files)[0] == ["fr/x.parquet"]
    with pytest.raises(UserError, match="no configuration de; allowed: en, fr"):
        patterns_of(parse_name("o/n:de"), {}, files)


@pytest.mark.parametrize(
    "pattern, path, matches",
    [
        ("a/*.parquet", "a/b.parquet", True),
        ("a/*.parquet", "a/b/c.parquet", False),
        ("**/*.parquet", "a/b/c.parquet", True),
        ("**/*.parquet", "c.parquet", True),
        ("data/train-[0-9]?.x", "data/train-1a.x", True),
        ("data/train-[!0-9]?.x", "data/train-1a.x", False),
        ("folder", "folder/a/b.parquet", True),
        ("a+b.parquet", "aab.parquet", False),
    ],
)
def test_globs(pattern, path, matches):
    assert bool(glob_regex(pattern).fullmatch(path)) is matches


def test_the_common_folder_narrows_what_is_listed():
    assert common_folder(["sample/10BT/*.parquet"]) == "sample/10BT"
    assert common_folder(["a/b/*.x", "a/c/d.x"]) == "a"
    assert common_folder(["**/*.parquet"]) == ""


def test_the_card_in_the_readme_is_read_where_the_api_does_not_give_it(tmp_path):
    readme = b"---\nconfigs:\n- config_name: small\n  data_files: s/*.parquet\n---\n# Title\n"
    files = {"README.md": readme, "s/a.parquet": parquet([["yes"]]), "b/a.parquet": parquet([["no"]])}
    with FakeHub({"o/n": files}) as hub:
        manifest, _ = resolve(hub, tmp_path, "o/n")
        assert [f.name for f in manifest.files] == ["s/a.parquet"]


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "status, code, words",
    [
        (401, "RepoNotFound", "is not a dataset at .*, or a private one .*hf auth login"),
        (403, "GatedRepo", "is gated; accept its conditions"),
        (404, "RevisionNotFound", "has no revision main; give a branch"),
    ],
)
def test_refusals_say_what_to_do(hub, tmp_path, status, code, words):
    hub.errors[REPO] = (status, code)
    with pytest.raises(UserError, match=words) as error:
        resolve(hub, tmp_path)
    one_line(error)


def test_a_missing_column_names_those_there_are(hub, tmp_path):
    with pytest.raises(UserError, match=r"text_column=body is not in .*; columns with text: id, text;"):
        resolve(hub, tmp_path, data=DataConfig(source=SOURCE, text_column="body"))
    with pytest.raises(UserError, match=r"text_column=score of .* holds double, not text"):
        resolve(hub, tmp_path, data=DataConfig(source=SOURCE, text_column="score"))


def test_other_formats_are_sent_to_data_fetch(tmp_path):
    with (
        FakeHub({"o/n": {"a.jsonl.gz": b"x"}}) as hub,
        pytest.raises(UserError, match=r"found: \.jsonl\.gz.*data fetch"),
    ):
        resolve(hub, tmp_path, "o/n")


def test_what_only_is_called_parquet_is_named(tmp_path):
    with (
        FakeHub({"o/n": {"a.parquet": b"not parquet at all"}}) as hub,
        pytest.raises(UserError, match=r"a\.parquet is named like"),
    ):
        resolve(hub, tmp_path, "o/n")


def test_no_network_is_try_again_at_once(tmp_path):
    client = HubClient("http://127.0.0.1:9", clock=FastClock())
    with pytest.raises(TryAgain, match=r"127\.0\.0\.1:9 cannot be reached; check the network") as error:
        HubSource(SOURCE, DATA, tmp_path, client=client, clock=FastClock()).manifest()
    one_line(error)


def test_offline_mode_asks_nothing(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids"):
        resolve(hub, tmp_path)
    assert hub.count() == 0


def test_an_outage_while_resolving_is_waited_out_or_given_up(hub, tmp_path):
    clock = FastClock(1000)
    hub.now = clock.now
    hub.outage(60)
    client = HubClient(hub.endpoint, clock=clock)
    assert len(HubSource(SOURCE, DATA, tmp_path, client=client, clock=clock).manifest()) == FILES * GROUPS
    hub.outage(10_000)
    with pytest.raises(TryAgain, match="the hub answers 503"):
        HubSource(SOURCE, DATA, tmp_path / "b", client=client, clock=clock).manifest()


def test_the_token_goes_to_the_hub_alone_and_nothing_secret_is_said(hub, tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecretsecret")
    caplog.set_level("INFO")
    manifest, client = resolve(hub, tmp_path)
    reader = open_hub(manifest, tmp_path, client=client)
    reader.read(0)
    hub.faults = [Fault("404", where="cdn|resolve", times=9)]
    with pytest.raises(Exception, match="404") as error:
        reader.read(1)
    assert {r.token for r in hub.requests if r.kind != "cdn"} == {"Bearer hf_secretsecretsecretsecret"}
    assert {r.token for r in hub.requests if r.kind == "cdn"} == {None}
    said = caplog.text + "".join(capsys.readouterr()) + str(error.value) + str(error.value.__cause__)
    kept = "".join(p.read_text(errors="replace") for p in tmp_path.rglob("*") if p.is_file())
    assert "hf_secret" not in said + kept and "sig=" not in said + kept

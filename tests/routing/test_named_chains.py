"""Chains that a manifest names: given to the system, or set in ``polypod.toml``."""

from __future__ import annotations

import json

import pytest
from config_kit import Files
from llm_server import Exchange, RawServer, reply
from routing.chain_kit import chain_of

from actors.config.trust import trust
from polypod import (
    ChainInvalid,
    ConfigError,
    EscalationChain,
    ManifestError,
    MissingKey,
    NotTrusted,
    PodManifest,
    PodSystem,
    RunFailed,
    Verdict,
    say,
)


def answered(*texts: str) -> list[bytes]:
    bodies = ({"choices": [{"message": {"content": each}, "finish_reason": "stop"}]} for each in texts)
    return [reply(json.dumps(each).encode()) for each in bodies]


async def test_a_chain_that_the_system_was_given_is_found_by_its_name():
    chain = chain_of([say("12")], [], Verdict(accept=True))
    async with PodSystem(chains={"careful": chain}) as system:
        pod = await system.spawn(PodManifest.of(name="p", model="chain/careful"))
        assert (await pod.run("Count.")).text == "12"
        assert (await pod.describe()).cost == 0.0


async def test_a_chain_is_found_in_the_file_of_the_folder_that_the_pod_works_in(files: Files):
    async with RawServer(*answered("short", "long enough")) as server:
        files.write_own(
            f"""
            [local_model]
            endpoint = "{server.url}"

            [[chain]]
            name = "careful"
            entries = ["phi4", {{ model = "qwen3", tier = "managed", cloud = false }}]
            verifier = {{ command = ["grep", "-q", "enough"] }}
            """
        )
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="p", model="chain/careful", pwd=str(files.deep)))
            assert (await pod.run("Count.")).text == "long enough"
        assert [each.json["model"] for each in server.received] == ["phi4", "qwen3"]


async def test_a_tier_has_a_server_and_a_key_of_its_own(files: Files, monkeypatch):
    monkeypatch.setenv("THEIR_KEY", "sesame")
    async with RawServer(*answered("short")) as near, RawServer(*answered("long enough")) as far:
        files.write_own(
            f"""
            [local_model]
            endpoint = "{near.url}"

            [[chain]]
            name = "careful"
            entries = [
              {{ model = "openai/qwen3", base_url = "{near.url}" }},
              {{ model = "openai/qwen3", base_url = "{far.url}", api_key_env = "THEIR_KEY", cloud = true }},
            ]
            verifier = {{ command = ["grep", "-q", "enough"] }}
            """
        )
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="p", model="chain/careful", pwd=str(files.deep)))
            assert (await pod.run("Count.")).text == "long enough"
        (small,), (large,) = near.received, far.received
        assert "authorization" not in small.headers
        assert large.headers["authorization"] == "Bearer sesame"


async def test_a_model_that_verifies_and_a_command_both_have_to_accept(files: Files):
    judged = '{"accept": true, "feedback": ""}'
    async with RawServer(*answered("an answer", judged)) as server:
        files.write_own(
            f"""
            [local_model]
            endpoint = "{server.url}"

            [[chain]]
            name = "careful"
            entries = ["phi4"]
            verifier = {{ command = ["true"], model = "judge", rubric = "It is an answer." }}
            """
        )
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="p", model="chain/careful", pwd=str(files.deep)))
            assert (await pod.run("Count.")).text == "an answer"
        assert server.received[1].json["model"] == "judge"


async def test_the_embedded_model_is_a_tier_by_its_name_alone(files: Files):
    files.write_own('[[chain]]\nname = "careful"\nentries = ["offline"]\nverifier = { command = ["true"] }\n')
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="p", model="chain/careful", pwd=str(files.deep)))
        assert (await pod.run("hi")).text


async def test_a_command_of_a_projects_file_is_not_run_before_a_person_has_looked_at_it(files: Files):
    path = files.write(
        """
        [[chain]]
        name = "careful"
        entries = ["offline/hello"]
        verifier = { command = ["true"] }
        """
    )
    manifest = PodManifest.of(name="p", model="chain/careful", pwd=str(files.deep))
    async with PodSystem() as system:
        with pytest.raises(NotTrusted):
            await system.spawn(manifest)
        (found,) = files.load().files
        trust(path, found.digest)
        pod = await system.spawn(manifest)
        assert (await pod.run("hi")).text


@pytest.mark.parametrize(
    ("chain", "error", "words"),
    [
        ('entries = ["offline/hello"]', ChainInvalid, "cannot be verified"),
        (
            'entries = ["phi4"]\nverifier = { command = ["true"] }',
            ConfigError,
            "chain 'careful': the server of the model 'phi4' is unknown",
        ),
        ('entries = ["claude-opus-5"]', MissingKey, "ANTHROPIC_API_KEY"),
        (
            'entries = [{ model = "big", base_url = "http://127.0.0.1:1/v1" }]',
            ConfigError,
            "'big' has a server of its own, but not its kind",
        ),
        (
            'entries = ["openai/x", { model = "openai/x", base_url = "http://127.0.0.1:1/v1" }]',
            ChainInvalid,
            "openai/x is the model of two tiers at different servers",
        ),
        (
            'entries = ["chain/careful"]\nverifier = { command = ["true"] }',
            ManifestError,
            "contains itself as a tier",
        ),
    ],
)
async def test_a_chain_that_could_not_work_is_refused_as_its_pod_is_made(
    files: Files,
    monkeypatch,
    chain,
    error,
    words,
):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    files.write_own(f'[[chain]]\nname = "careful"\n{chain}\n')
    async with PodSystem() as system:
        with pytest.raises(error, match=words):
            await system.spawn(PodManifest.of(name="p", model="chain/careful", pwd=str(files.deep)))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"model": "chain/carefull"}, ConfigError, "there is no chain 'carefull'"),
        ({"model": "chain"}, ManifestError, "the name of a chain is missing"),
        (
            {"model": "chain/a", "base_url": "http://127.0.0.1:1/v1"},
            ManifestError,
            "model.base_url: not for a chain",
        ),
    ],
)
async def test_a_manifest_that_names_no_chain_is_refused(files: Files, settings, error, words):
    async with PodSystem() as system:
        with pytest.raises(error, match=words):
            await system.spawn(PodManifest.of(name="p", pwd=str(files.deep), **settings))


async def test_a_tier_in_the_file_may_be_a_chain(files: Files):
    async def down(exchange: Exchange) -> None:
        await exchange.send(reply(b"{}", status="404 Not Found"))

    async with RawServer(down) as server:
        files.write_own(
            f"""
            [local_model]
            endpoint = "{server.url}"

            [[chain]]
            name = "inner"
            entries = ["phi4"]
            verifier = {{ command = ["true"] }}

            [[chain]]
            name = "outer"
            entries = ["chain/inner", "qwen3"]
            verifier = {{ command = ["true"] }}
            """
        )
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="p", model="chain/outer", pwd=str(files.deep)))
            with pytest.raises(RunFailed, match=r"2 attempt\(s\): chain/inner: all tiers exhausted after 1"):
                await pod.run("Count.")


async def test_a_session_on_a_chain_is_resumed_on_it(tmp_path):
    manifest = PodManifest.of(name="p", model="chain/careful")
    chain: EscalationChain = chain_of([say("12"), say("13")], [], Verdict(accept=True), Verdict(accept=True))
    async with PodSystem(f"sqlite:{tmp_path}/pods.db", chains={"careful": chain}) as system:
        pod = await system.spawn(manifest)
        await pod.run("Count.")
        session = (await pod.describe()).session_id
        await pod.stop()
        again = await system.spawn(manifest, resume=session)
        assert (await again.run("Again.")).text == "13"

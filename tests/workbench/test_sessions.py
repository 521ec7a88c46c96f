"""An open page costs the server the same memory after a thousand polls as after ten."""

from __future__ import annotations

import gradio as gr
from gradio.routes import App
from starlette.testclient import TestClient

from workbench.sessions import keep_ids


def test_polls_that_change_nothing_leave_nothing_behind() -> None:
    keep_ids()
    keep_ids()  # twice is once
    with gr.Blocks() as page:
        shown = gr.HTML("a")
        gr.Timer(1).tick(lambda text: gr.skip(), shown, shown, queue=False)
    app = App.create_app(page)
    client = TestClient(app)

    def poll() -> int:
        body = {"data": ["a"], "fn_index": 0, "session_hash": "page"}
        assert client.post("/gradio_api/run/predict", json=body).status_code == 200
        session = app.state_holder["page"]
        return len(session.blocks_config.blocks) + len(session.config_values)

    poll()
    after_two = poll()
    assert [poll() for _ in range(5)] == [after_two] * 5

"""Talks to a gateway with the official clients: official_clients.py openai|anthropic|three URL [MODEL...]."""

import asyncio
import base64
import json
import sys

PIXEL = base64.b64encode(b"\x89PNG not really").decode()
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def openai_client(url):
    import openai
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int

    with openai.OpenAI(base_url=url + "/v1", api_key="secret") as client:
        assert [model.id for model in client.models.list()] == ["tiny", "fast"]
        assert client.models.retrieve("fast").owned_by == "ollama"
        hello = [{"role": "user", "content": "Hello"}]
        answer = client.chat.completions.create(model="fast", messages=hello)
        assert answer.choices[0].message.content == "Hello there", answer
        assert answer.usage.total_tokens == 7, answer

        chunks = list(
            client.chat.completions.create(
                model="fast", messages=hello, stream=True, stream_options={"include_usage": True}
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "Hello there", text
        assert chunks[-1].usage.total_tokens == 7

        tools = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
        for stream in (False, True):
            messages = [{"role": "user", "content": "How is the weather in Paris?"}]
            if stream:
                with client.chat.completions.stream(model="tiny", messages=messages, tools=tools) as events:
                    message = events.get_final_completion().choices[0].message
            else:
                answer = client.chat.completions.create(model="tiny", messages=messages, tools=tools)
                message = answer.choices[0].message
            [call] = message.tool_calls
            assert json.loads(call.function.arguments) == {"city": "Paris"}, call
            messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
            answer = client.chat.completions.create(model="tiny", messages=messages, tools=tools)
            assert answer.choices[0].message.content == "It is sunny", answer

        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PIXEL}}
        seen = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]
        answer = client.chat.completions.create(model="tiny", messages=seen)
        assert answer.choices[0].message.content == "I see " + PIXEL, answer

        parsed = client.chat.completions.parse(model="tiny", messages=hello, response_format=Person)
        assert parsed.choices[0].message.parsed == Person(name="Ada", age=36)

        assert client.embeddings.create(model="tiny", input="x", encoding_format="float").data[0].embedding == [0.5, -1.0]
        said = client.audio.transcriptions.create(model="fast", file=("a.wav", b"RIFF", "audio/wav"))
        assert said.text == "heard 4 bytes for tiny", said

        answer = client.responses.create(model="fast", instructions="Be brief.", input="Hello")
        assert answer.output_text == "Hello there", answer
        events = list(client.responses.create(model="fast", input="Hello", stream=True))
        assert events[-1].type == "response.completed" and events[-1].response.output_text == "Hello there"
        parsed = client.responses.parse(model="tiny", input="Hello", text_format=Person)
        assert parsed.output_parsed == Person(name="Ada", age=36)
        function = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": False}
        answer = client.responses.create(model="tiny", input="How is the weather in Paris?", tools=[function])
        [call] = [item for item in answer.output if item.type == "function_call"]
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        again = [{"role": "user", "content": "How is the weather in Paris?"}, call, output]
        assert client.responses.create(model="tiny", input=again, tools=[function]).output_text == "It is sunny"

        try:
            client.chat.completions.create(model="tinny", messages=hello)
            raise AssertionError("an unknown model answers")
        except openai.NotFoundError as error:
            assert error.code == "model_not_found" and "similar names: tiny" in error.message, error
        try:
            cut = [{"role": "user", "content": "cut"}]
            text = [chunk for chunk in client.chat.completions.create(model="tiny", messages=cut, stream=True)]
            raise AssertionError(f"half an answer is taken for a whole one: {text}")
        except openai.APIError as error:
            assert error.code == "stream_cut", error
        try:
            openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0).models.list()
            raise AssertionError("a wrong token is taken")
        except openai.AuthenticationError:
            pass

    async def many():
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="secret") as client:
            asks = [client.chat.completions.create(model="tiny", messages=hello) for _ in range(20)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asks)]

    assert asyncio.run(many()) == ["Hello there"] * 20


def anthropic_client(url):
    import anthropic
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int

    with anthropic.Anthropic(base_url=url, api_key="secret") as client:
        hello = [{"role": "user", "content": "Hello"}]
        answer = client.messages.create(model="fast", max_tokens=100, system="Be brief.", messages=hello)
        assert answer.content[0].text == "Hello there", answer
        assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.stop_reason) == (5, 2, "end_turn")
        with client.messages.stream(model="fast", max_tokens=100, messages=hello) as stream:
            assert "".join(stream.text_stream) == "Hello there"
            assert stream.get_final_message().usage.output_tokens == 2

        tools = [{"name": "get_weather", "description": "Weather", "input_schema": WEATHER}]
        for streamed in (False, True):
            messages = [{"role": "user", "content": "How is the weather in Paris?"}]
            asked = {"model": "tiny", "max_tokens": 100, "messages": messages, "tools": tools}
            if streamed:
                with client.messages.stream(**asked) as stream:
                    answer = stream.get_final_message()
            else:
                answer = client.messages.create(**asked)
            assert answer.stop_reason == "tool_use", answer
            [call] = [block for block in answer.content if block.type == "tool_use"]
            assert call.input == {"city": "Paris"}, call
            result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
            messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
            answer = client.messages.create(**asked)
            assert answer.content[0].text == "It is sunny", answer

        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        seen = [{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "?"}]}]
        answer = client.messages.create(model="tiny", max_tokens=100, messages=seen)
        assert answer.content[0].text == "I see " + PIXEL, answer

        parsed = client.messages.parse(model="tiny", max_tokens=100, messages=hello, output_format=Person)
        assert parsed.parsed_output == Person(name="Ada", age=36), parsed

        assert client.messages.count_tokens(model="tiny", messages=hello).input_tokens > 0
        try:
            client.messages.create(model="tinny", max_tokens=1, messages=hello)
            raise AssertionError("an unknown model answers")
        except anthropic.NotFoundError as error:
            assert error.body["error"]["type"] == "not_found_error", error
        try:
            cut = [{"role": "user", "content": "cut"}]
            with client.messages.stream(model="tiny", max_tokens=100, messages=cut) as stream:
                text = "".join(stream.text_stream)
            raise AssertionError(f"half an answer is taken for a whole one: {text}")
        except anthropic.APIError:
            pass


def three(url, models):
    """One client, one address, and servers that it has not started."""
    import anthropic
    import openai

    client = openai.OpenAI(base_url=url + "/v1", api_key="none")
    listed = {model.id for model in client.models.list()}
    other = anthropic.Anthropic(base_url=url, api_key="none")
    for model in models:
        assert model in listed, (model, listed)
        asked = {"model": model, "max_tokens": 30, "messages": [{"role": "user", "content": "Hello"}]}
        asked["extra_body"] = {"temperature": 0}
        whole = client.chat.completions.create(**asked).choices[0].message.content
        pieces = client.chat.completions.create(**asked, stream=True)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices)
        answer = other.messages.create(**asked).content[0].text
        # Ollama has the API of messages, but no count; mlx_lm.server has neither.
        assert other.messages.count_tokens(model=model, messages=asked["messages"]).input_tokens > 0
        assert "tiny model" in whole and whole.strip() == streamed.strip() == answer.strip(), (model, whole, streamed, answer)
        print(model, whole.strip())


{"openai": lambda: openai_client(sys.argv[2]), "anthropic": lambda: anthropic_client(sys.argv[2]),
 "three": lambda: three(sys.argv[2], sys.argv[3:])}[sys.argv[1]]()

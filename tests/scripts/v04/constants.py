"""Constants, their content types, labels, and Concat."""

import sys

from rain.client import Client, RainException, blob, pickled, tasks
from rain.client.data import to_dataobj
from rain.common.content_type import check_content_type, is_type_instance, merge_content_types


def refused(call):
    """The name of the exception which the call raises."""
    try:
        call()
    except (RainException, ValueError, TypeError) as error:
        return type(error).__name__
    return "nothing"


with Client(sys.argv[1], int(sys.argv[2])) as client, client.new_session("constants") as session:
    text = blob("a text", label="text")
    latin = blob("\u00e9", encode="text-latin-1")
    raw = blob(b"\x00\x01", content_type="user/raw")
    document = blob([1, 2.5, None, {"k": "v"}], encode="json")
    arrays = blob({"list": [b"x" * 3]}, encode="pickle5")
    thing = pickled((1, "two"), label="thing")
    joined = tasks.Concat([text, raw, text])
    all_of_it = tasks.Concat([joined, joined])
    print(to_dataobj(joined) is joined.output, to_dataobj(text) is text)
    print(text.id.id, joined.id.id, joined.output.id.id, text.id == (session.session_id, 10), text.data)

    for constant in (text, latin, raw, document, arrays, thing):
        constant.keep()
    all_of_it.keep_outputs()
    session.submit()
    for constant in (text, latin, document, arrays, thing):
        instance = constant.fetch()
        print(constant.label, constant.content_type, instance.load(), constant.size == instance.size)
    print(all_of_it.output.fetch().get_bytes(), all_of_it.output.fetch().content_type)
    print(raw.fetch().content_type, raw.spec.content_type, raw.info.size, raw.spec.data_type)

    pieces = [blob(bytes([number]) * 1_000_000) for number in range(12)]
    large = tasks.Concat([*pieces, all_of_it, *pieces])
    large.keep_outputs()
    session.submit()
    value = large.output.fetch().get_bytes()
    print(len(value), value[1_000_000:1_000_001], value[-1:], large.output.size)

    print(refused(lambda: blob(12)))
    print(refused(lambda: blob("x", content_type="text")))
    print(refused(lambda: blob("x", encode="nonsense")))
    print(refused(lambda: blob("x", encode="protobuf")))
    print(refused(lambda: blob(12, encode="text")))
    print(refused(lambda: blob([1], encode="json", content_type="json")))
    print(refused(lambda: raw.fetch().load()))
    print(refused(lambda: tasks.Concat([b"bytes"])))
    print(merge_content_types("text", "text-utf-16"), merge_content_types(None, "json"))
    print(refused(lambda: merge_content_types("json", "pickle")), refused(lambda: check_content_type("jso")))
    print(is_type_instance("user/a/b", "user/a"), is_type_instance("text", "text-latin-1"))

"""Go's templates, as far as we carry them out: what they give, and what Go would say of those that are wrong."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterswarm.core.template import Fault, expand
from afterswarm.core.template.values import Fields

DOT = Fields(
    "*template.Context",
    Service=Fields("service", Name="web", Labels={"a": "1", "b.c": "two"}),
    Node=Fields("node", Hostname="h1", Platform=Fields("template.Platform", OS="linux")),
    Task=Fields("task", Slot="3"),
)


def env(name: str) -> str:
    return {"USER": "ann"}.get(name, "")


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("no action", "no action"),
        ("{{.Service.Name}}-{{.Task.Slot}}", "web-3"),
        ("{{ .Node.Platform.OS }}", "linux"),
        ('{{index .Service.Labels "b.c"}}|{{index .Service.Labels "none"}}|', "two||"),
        ("{{.Service.Labels.a}}", "1"),
        ("{{.Service.Labels}}", "map[a:1 b.c:two]"),
        ('{{join "-" .Service.Name .Task.Slot "x"}}', "web-3-x"),
        ('{{.Service.Name | printf "%s/%q/%5s|%-5s|" "a" "b" "c"}}', 'a/"b"/    c|web  |'),
        ('{{printf "%03d %v %t %x %%" 7 1.5 true "ab"}}', "007 1.5 true 6162 %"),
        ('{{printf "%d" "x"}} {{printf "%s"}} {{printf "a" 1}}', "%!d(string=x) %!s(MISSING) a%!(EXTRA int=1)"),
        ("a  {{- 3 -}}  b", "a3b"),
        ("a {{- /* said to nobody */ -}} b", "ab"),
        ("{{/* c */}}x", "x"),
        ("{{\"}}\"}}{{`raw \\n`}}{{'a'}}", "}}raw \\n97"),
        ('{{if eq .Task.Slot "3" "4"}}yes{{else}}no{{end}}', "yes"),
        ('{{if eq .Task.Slot "1"}}a{{else if ne .Node.Hostname "h1"}}b{{else}}c{{end}}', "c"),
        ('{{if and .Task.Slot (not "") (or "" 1)}}x{{end}}', "x"),
        ('{{and "" (index 1 2)}}', ""),
        ("{{with .Service.Labels.a}}[{{.}}]{{else}}none{{end}}", "[1]"),
        ('{{with ""}}x{{else}}none{{end}}', "none"),
        ("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}", "a=1;b.c=two;"),
        ("{{range .Service.Labels}}<{{.}}>{{end}}", "<1><two>"),
        ("{{range $k, $v := .Service.Labels}}{{$k}}{{break}}{{end}}", "a"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}{{$.Task.Slot}}", "23"),
        ("{{(index .Service.Labels `a`) | len}}", "1"),
        ('{{slice "afterswarm" 5 8}} {{lt 1 2}} {{ge "b" "a"}}', "swa true true"),
        ('{{html "<a&b>"}} {{urlquery "a b&"}} {{js "it\'s"}}', "&lt;a&amp;b&gt; a+b%26 it\\'s"),
        ('{{env "USER"}}{{env "NONE"}}', "ann"),
        ("{{println 1 `a` 2}}", "1 a 2\n"),
        ("{{print 1 2 `a` 3}}", "1 2a3"),
    ],
)
def test_it_becomes(text, becomes):
    assert expand(text, DOT, {"env": env}) == becomes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{.Nope}}", '1:2: executing "expansion" at <.Nope>: can\'t evaluate field Nope in type *template.Context'),
        ("\n {{.Service.Nope}}", '2:3: executing "expansion" at <.Service.Nope>: can\'t evaluate field Nope in type s'),
        ("{{.Service.Labels.no}}", 'map has no entry for key "no"'),
        ("{{nonsense}}", '1: function "nonsense" not defined'),
        ("{{env `A`}}", 'function "env" not defined'),
        ("{{", "unclosed action"),
        ("{{.Task.Slot", "unclosed action"),
        ('{{"a', "unterminated quoted string"),
        ("{{}}", "missing value for command"),
        ("{{.Task.Slot |}}", "missing value for command"),
        ("{{if}}{{end}}", "missing value for if"),
        ("{{if 1}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "expected end; found {{else}}"),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{$x}}", 'undefined variable "$x"'),
        ("{{if 1}}{{$x := 1}}{{end}}{{$x}}", 'undefined variable "$x"'),
        ("{{define `a`}}{{end}}", "{{define}} is not available here"),
        ("{{(1}}", "unclosed left paren"),
        ("{{1)}}", "unexpected ')' in command"),
        ("{{.Task.Slot 1}}", "can't give argument to non-function .Task.Slot"),
        ("{{len 1}}", "error calling len: len of type int"),
        ("{{index .Service `a`}}", "can't index item of type service"),
        ('{{join "a" 1}}', "expected string; got int"),
        ('{{eq 1 "a"}}', "incompatible types for comparison"),
        ("{{len}}", "wrong number of args for len: got 0"),
        ("{{range 5}}{{end}}", "range can't iterate over 5"),
        ("{{nil | print}}", "nil is not a command"),
        ("{{@}}", 'unexpected "@" in operand'),
        ("{{" + "(" * 99 + "1" + ")" * 99 + "}}", "too deeply nested"),
        ("{{if 1}}" * 99, "too deeply nested"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_as_go_says_it(text, words):
    with pytest.raises(Fault) as fault:
        expand(text, DOT)
    assert str(fault.value).startswith("template: expansion:")
    assert words in str(fault.value)


def test_a_template_that_is_a_trap_ends():
    with pytest.raises(Fault, match="does not come to an end"):
        expand("{{range .}}" * 3 + "x" + "{{end}}" * 3, [[["a"] * 99] * 99] * 99)


@given(st.text(st.sampled_from("{}-.$|()\"'` aif:=,end1/*x\n"), max_size=40))
def test_any_text_is_expanded_or_refused_and_nothing_else(text):
    for form in (text, "{{" + text + "}}"):
        with suppress(Fault):
            expand(form, DOT)

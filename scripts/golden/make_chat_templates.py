"""Golden renderings of chat templates. Writes tests/golden/chat_template/constructs.json: small templates of our own, one per construct.

Run:  python scripts/golden/make_chat_templates.py                     (jinja2 3.1.6, transformers 5.23.0)
      python scripts/golden/make_chat_templates.py --real FOLDER OUT   cases.json of what scripts/setup.sh fetched; not committed

Both render with the environment that transformers compiles chat templates with.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

from transformers.utils import chat_template_utils

# The clock of strftime_now; quiver/text/jinja_golden_test.cpp has the same.
NOW = datetime.datetime(2026, 3, 9, 14, 5, 7)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Clock


def rendered(source: str, variables: dict) -> dict:
    """What jinja2 makes of the template, or what it raises."""
    try:
        # lru_cached: each template is compiled once.
        return {"expected": chat_template_utils._compile_jinja_template(source).render(**variables)}
    except Exception as error:  # whatever Python raises, Quiver must raise
        return {"raises": f"{type(error).__name__}: {error}"[:200]}


# Each row: template, and the variables if it needs some.
M = {"messages": [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Héllo 😀"}]}
TRIMMING = [
    ("a\n{% if true %}\nb\n{% endif %}\nc\n",),
    ("  {% if true %}  x  {% endif %}  \n y",),
    ("a \n {%- if true -%} \n b \n {%- endif -%} \n c",),
    ("a \n {%+ if true %}b{% endif +%}\nc",),
    ("a\n  {{ 1 }}\n  {{- 2 -}}\n  b\n\n",),
    ("x {# note #}\ny {#- note -#} z\n  {# alone #}\nw",),
    ("{% raw %}{{ x }}{% if %}{% endraw %}\n.",),
    ("  {%- raw -%}  {{ x }}  {%- endraw -%}  .",),
    ("a\r\nb\rc{% if true %}\r\nd{% endif %}\r\n",),
    ("{{ 'a\\nb' }}\n\n",),
    ("\u00a0\u2003{%- if true %}x{% endif -%}\u3000 y",),
    ("{% if true %}{{ '%}' }}{{ {'a': {'b': 1}}['a']['b'] }}{% endif %}",),
    ("",),
    ("\n",),
    ("text { with } braces {",),
    ("{{ '{{' }} {{ \"}}\" }}",),
    ("\t{% set x = 1 %}\t{{ x }}\n\t{# c #}\t\n.",),
    ("{%- for i in [1,2] %}\n  {{ i }}\n{%- endfor %}\nend",),
]
LITERALS = [
    ("{{ 1 }} {{ 1_000 }} {{ 1.5 }} {{ 1e3 }} {{ 1.5e-7 }} {{ 1e16 }} {{ 123456789.0 }} {{ 0.1 + 0.2 }} {{ 1e22 }} {{ 5e-324 }}",),
    ("{{ true }} {{ True }} {{ false }} {{ none }} {{ None }} {{ missing }}|",),
    (r"{{ 'a\tb\\c\'d\x41\u00e9\U0001F600\101\q' }}" + "{{ \"it's\" 'x' }}",),
    ("{{ [1, 'a', none, true, 1.0, [], {}, (), (1,), (1, 2)] }}",),
    ("{{ {'a': 1, 2: 'b', none: [true]} }}",),
    ("{{ ['it\\'s', 'say \"x\"', 'both \\' \"', 'tab\\t nl\\n \\\\', 'é😀', '\\x00\\x7f\\u200b\\xad\\u2028'] }}",),
    ("{{ 1, 2 }} {{ (1, 2,)[1] }} {{ ()|length }}",),
    ("{{ x }}", {"x": {"a": [1, 2.0, None, True, "s"], "b": {}}}),
    ("{{ {'a': 1, 'a': 2} }} {{ {1: 'x', true: 'y', 1.0: 'z'} }}",),
    ("{{ -0.0 }} {{ 1e308 * 10 }} {{ -1e308 * 10 }} {{ 2.0 ** 0.5 }} {{ 100000.0 }} {{ 0.0001 }} {{ 0.00001 }}",),
]
OPERATORS = [
    ("{{ 7 + 2 }} {{ 7 - 2 }} {{ 7 * 2 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ 7 % 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}",),
    ("{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ -7.5 // 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }} {{ 1 / 4 }} {{ 2 ** 3 ** 2 }}",),
    ("{{ true + 1 }} {{ 1 + 1.0 }} {{ -true }} {{ +3 }} {{ -2 ** 2 }} {{ - 3|abs }}",),
    ("{{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ 2 * 'x' }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ [0] * 3 }} {{ 'a' * -1 }}|",),
    ("{{ 1 ~ 'a' ~ none ~ missing ~ [1] ~ 1.0 }}",),
    ("{{ '%s is %d, %r%%' % ('x', 3.7, 'y') }} {{ '%s' % 1 }} {{ '%s' % [1, 2] }} {{ 'a' % [1] }}",),
    ("{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' < 'b' }} {{ 'Z' < 'a' }} {{ [1, 2] < [1, 3] }} {{ (1,) <= (1,) }}",),
    ("{{ 'a' == 1 }} {{ none == none }} {{ missing == missing2 }} {{ missing == none }} {{ [1] == (1,) }} {{ {'a': 1} == {'a': 1.0} }}",),
    ("{{ 1 >= 1 }} {{ 2 > 3 }} {{ 2 != 3 }} {{ 'a' >= 'b' }}",),
    ("{{ 'b' in 'abc' }} {{ 'x' not in 'abc' }} {{ 2 in [1, 2] }} {{ 'a' in {'a': 1} }} {{ 1 in missing }} {{ '' in 'a' }}",),
    ("{{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ none or missing }}| {{ not 0 }} {{ not not 1 }} {{ not 1 == 2 }}",),
    ("{{ 'a' if 1 else 'b' }} {{ 'a' if 0 else 'b' }} {{ 'a' if 0 }}| {{ 1 if 0 else 2 if 0 else 3 }}",),
    ("{{ 1 if true if true else 5 }}",),
    ("{{ 2 + 3 * 4 - 1 }} {{ (2 + 3) * 4 }} {{ 'x' + 2 ~ 3 }} {{ 'a' ~ 1 * 2 }} {{ 10 - 2 - 3 }} {{ 100 // 7 // 2 }}",),
]
SUBSCRIPTS = [
    ("{{ x[0] }} {{ x[-1] }} {{ x[5] }}| {{ x[1:] }} {{ x[:-1] }} {{ x[::-1] }} {{ x[::2] }} {{ x[10:] }} {{ x[-100:2] }} {{ x[3:0:-2] }}", {"x": [1, 2, 3, 4]}),
    ("{{ x[0] }}{{ x[-1] }} {{ x[1:3] }} {{ x[::-1] }} {{ x[:2] }} {{ x[9] }}| {{ x|length }} {{ x[5:1:-2] }}", {"x": "hé😀lo"}),
    ("{{ x.a }} {{ x['a'] }} {{ x.b.c }} {{ x.none }}| {{ x['zz'] }}| {{ x.l.0 }} {{ x.l[1] }}", {"x": {"a": 1, "b": {"c": 2}, "l": [7, 8]}}),
    ("{{ x.items() }} {{ x['items'] }} {{ x.keys() }} {{ x.values() }}", {"x": {"items": 5, "b": 2}}),
    ("{{ (1, 2, 3)[1:] }} {{ [1, 2][true] }} {{ [1, 2]['a'] }}| {{ 5[0] }}| {{ none.x }}| {{ none['x'] }}| {{ {1: 'one'}[1] }}",),
    ("{{ x.pop }}| {{ x.__class__ }}| {{ x._a }} {{ 'a'.__len__ }}|", {"x": {"_a": 3, "pop": 1}}),
    ("{{ {'a': {'b': [10, 20]}}.a.b[1] }} {{ 'abc'[1] }} {{ 'abc'.upper()[0] }} {{ [1, 2, 3][-2] }}",),
]
STATEMENTS = [
    ("{% if a %}1{% elif b %}2{% elif c %}3{% else %}4{% endif %}", {"c": 1}),
    ("{% if a is defined and a %}1{% endif %}{% if not a %}2{% endif %}",),
    ("{% for x in [1, 2, 3] %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.first }}/{{ loop.last }}/{{ loop.length }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.previtem }}/{{ loop.nextitem }};{% endfor %}",),
    ("{% for x in [] %}a{% else %}none{% endfor %}{% for x in [1] %}a{% else %}none{% endfor %}",),
    ("{% for k, v in d.items() %}{{ k }}={{ v }},{% endfor %}{% for k in d %}{{ k }}{% endfor %}", {"d": {"b": 1, "a": 2}}),
    ("{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",),
    ("{% for x in [1, 2, 3, 4] if x % 2 == 0 %}{{ loop.index }}:{{ x }}:{{ loop.last }} {% endfor %}",),
    ("{% for x in [1, 2, 3] if x > 5 %}{{ x }}{% else %}e{% endfor %}",),
    ("{% set ns = namespace(n=2) %}{% for x in [1, 2, 3, 4] if x < ns.n %}{{ x }}{% set ns.n = 9 %}{% endfor %}",),
    ("{% for x in [1, 2, 3, 4, 5] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}.",),
    ("{% for c in 'hé😀' %}[{{ c }}]{% endfor %}{% for x in missing %}x{% endfor %}{% for i in range(3) %}{{ i }}{% endfor %}",),
    ("{% for i in [1, 2] %}{% for j in [1, 2] %}{{ loop.index }}{{ i }}{{ j }} {% endfor %}{{ loop.index }};{% endfor %}",),
    ("{% for x in [1, 2, 3] %}{{ loop.cycle('a', 'b') }}{% endfor %}",),
    ("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}",),
    ("{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",),
    ("{% for i in [1, 2] %}{% if i == 2 %}{{ y }}|{% endif %}{% set y = i %}{{ y }}{% endfor %}",),
    ("{% for x in [1] %}{{ x }}{% endfor %}{{ x }}|{{ loop }}|", {"x": "out"}),
    ("{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}",),
    ("{% set x %}a{{ 1 }}b{% endset %}{{ x|length }}{{ x }}{% set y | upper | trim %} q {% endset %}[{{ y }}]",),
    ("{% set x %}{% set z = 3 %}{{ z }}{% endset %}{{ x }}{{ z }}|",),
    ("{% set ns = namespace(a=1, b='x') %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% set ns.c = i %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns.d }}|",),
    ("{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns['b'] }}",),
    ("{% filter upper %}abc{{ 'd' }}{% endfilter %}{% filter trim | replace('a', 'b') %}  aa {% endfilter %}",),
    ("{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}|",),
    ("{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}",),
    ("{% generation %}a{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}|",),
    ("{% for x in [1, 2, 3] %}{% set s %}{% if x == 2 %}{% break %}{% endif %}k{% endset %}{{ s }}{{ x }}{% endfor %}.",),
    ("{% for x in [1, 2] -%}  {{ x }}  {%- endfor %}",),
    ("{% print 1 + 1 %}",),
    ("{% for i in [1] %}{{ x }}{% endfor %}|{% set x = 1 %}{% for i in [1] %}{{ x }}{% endfor %}", {"x": 0}),
    ("{{ x }}{% for i in [1] %}{{ x }}{% endfor %}|{% set x = 1 %}{% for i in [1] %}{{ x }}{% endfor %}", {"x": 0}),
    ("{% for i in [1] %}{{ x }}{% endfor %}|{% if false %}{% set x = 1 %}{% endif %}{% for i in [1] %}{{ x }}{% endfor %}", {"x": 0}),
    ("{% for i in [1] %}{% for j in [1, 2] %}{{ x }}{% endfor %}{% set x = i %}{% endfor %}{{ x }}", {"x": 0}),
    ("{% for i in [1] %}{% for j in [1, 2] %}{{ x }}{% endfor %}{% set x = i %}{% endfor %}", {"x": 0}),
    ("{% for i in [1] %}{{ x }}{% endfor %}{% set x %}{{ x }}{% endset %}{{ x }}", {"x": 0}),
    ("{% for i in [1] %}{{ x }}{% endfor %}{% set x = x ~ 1 %}{{ x }}", {"x": 0}),
    ("{% set x = x if x is defined else 5 %}{{ x }}{% set y = y | default(6) %}{{ y }}", {"x": 0}),
    ("{% for m in messages %}{{ m.role }}:{{ m['content'] | trim }}\n{% endfor %}", M),
    ("{% if messages[0]['role'] == 'system' %}{% set s = messages[0].content %}{% set messages = messages[1:] %}{% endif %}{{ s }}{{ messages|length }}", M),
    ("{%- set x = {'a': 1} -%}{{ x.a }}{% set x = x.get('b', 'd') %}{{ x }}",),
    ("{% set r %}{% for i in range(2) %}{{ i }},{% endfor %}{% endset %}{{ r[:-1] }}",),
]
MACROS = [
    ("{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c='z') }} {{ m(b=5, a=4) }} {{ m() }}",),
    ("{% macro m(a, b=a + 1) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}",),
    ("{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}{{ f(2)|length }}",),
    ("{% macro m() %}{{ x }}{% endmacro %}{{ m() }}|{% set x = 1 %}{{ m() }}", {"x": 0}),
    ("{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, a=3) }}",),
    ("{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",),
    ("{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}",),
    ("{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",),
    ("{% macro m(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ m() }}{{ m(none) }}",),
    ("{% set x = 1 %}{% macro m() %}{% set x = 2 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}",),
    ("{% for i in [1, 2] %}{% macro m() %}<{{ i }}>{% endmacro %}{{ m() }}{% endfor %}",),
    ("{%- macro a(x) -%}\n [{{ x }}] \n{%- endmacro -%}\n{{ a('q') }}{% set s = a(1) ~ a(2) %}{{ s }}",),
    ("{% macro m(x) %}{% for i in x %}{{ i }}{% if i == 2 %}{% break %}{% endif %}{% endfor %}{% endmacro %}{{ m([1, 2, 3]) }}",),
    ("{{ m(1) }}{% macro m(a) %}{{ a }}{% endmacro %}",),
]
FILTERS = [
    ("{{ 'aBc dEf'|upper }} {{ 'ABC Ä'|lower }} {{ 'aBC dEF'|capitalize }} {{ \"it's a-b (c) [d] FOO\"|title }} {{ 'straße ÿ'|upper }}",),
    ("[{{ '  a b  '|trim }}] [{{ 'xxaxx'|trim('x') }}] [{{ none|trim }}] [{{ 5|trim }}] [{{ '\\u00a0 x\\u2003'|trim }}]",),
    ("{{ missing|default('d') }} {{ none|default('d') }} {{ ''|default('d', true) }} {{ 0|d('e', boolean=true) }} {{ missing|default }}|",),
    ("{{ [1, 2]|length }} {{ 'héé'|length }} {{ {'a': 1}|count }} {{ missing|length }} {{ (1,)|length }}",),
    ("{{ [3, 1, 2]|first }} {{ [3, 1]|last }} {{ []|first }}| {{ 'abc'|last }} {{ 'héx'|first }} {{ {'a': 1}|first }}",),
    ("{{ ['a', 1, none]|join }} {{ ['a', 1]|join(', ') }} {{ 'abc'|join('-') }} {{ [{'n': 1}, {'n': 2}]|join(',', attribute='n') }} {{ {'a': 1, 'b': 2}|join }}",),
    ("{{ 'aXbXc'|replace('X', '-') }} {{ 'aaa'|replace('a', 'b', 2) }} {{ 'ab'|replace('', '.') }} {{ 1212|replace(1, 3) }}",),
    ("{{ [1, 2]|list }} {{ 'ab'|list }} {{ {'a': 1}|list }} {{ range(3)|list }} {{ missing|list }}",),
    ("{{ [3, 1, 2]|sort }} {{ ['b', 'A', 'c']|sort }} {{ ['b', 'A']|sort(case_sensitive=true) }} {{ [1, 3, 2]|sort(reverse=true) }} {{ [{'a': 2}, {'a': 1}]|sort(attribute='a') }}",),
    ("{{ {'b': 1, 'A': 2}|dictsort }} {{ {'b': 1, 'a': 2}|dictsort(by='value') }} {{ {'b': 1, 'a': 2}|dictsort(reverse=true) }} {{ {'b': 1, 'A': 2}|dictsort(true) }}",),
    ("{{ ['a', 'A', 'b']|unique|list }} {{ [1, 1.0, 2]|unique|list }} {{ [{'t': 1}, {'t': 1}]|unique(attribute='t')|list }}",),
    ("{{ ['a', 'b']|map('upper')|list }} {{ x|map(attribute='n')|list }} {{ x|map(attribute='m', default='?')|join }} {{ ['1', 'q']|map('int', default=7)|list }} {{ x|map(attribute='o.p')|list }}", {"x": [{"n": 1, "o": {"p": 5}}, {"n": 2, "m": 3, "o": {"p": 6}}]}),
    ("{{ [0, 1, 2]|select|list }} {{ [1, 2, 3]|select('odd')|list }} {{ [1, 2, 3]|reject('equalto', 2)|list }} {{ [0, 1]|reject|list }} {{ [1, 2, 3]|select('>', 1)|list }}",),
    ("{{ x|selectattr('r', 'equalto', 'u')|list }} {{ x|rejectattr('r', '==', 'u')|map(attribute='r')|list }} {{ x|selectattr('z')|list }} {{ x|selectattr('z', 'defined')|list|length }}", {"x": [{"r": "u", "z": 0}, {"r": "s"}]}),
    ("{{ '5'|int }} {{ 'x'|int }} {{ ' 4_2 '|int }} {{ '3.9'|int }} {{ 3.9|int }} {{ -3.9|int }} {{ none|int(8) }} {{ true|int }} {{ 'x'|int(default=3) }} {{ '-7'|int }} {{ '1e3'|int }}",),
    ("{{ '5'|float }} {{ 'x'|float }} {{ '1e3'|float }} {{ ' inf '|float }} {{ 3|float }} {{ 'x'|float(1.5) }} {{ '.5'|float }} {{ '5.'|float }} {{ '1_0.5'|float }}",),
    ("{{ 42.55|round }} {{ 42.55|round(1) }} {{ 2.5|round }} {{ 3.5|round }} {{ 42.55|round(1, 'floor') }} {{ 42.01|round(method='ceil') }} {{ 7|round }} {{ 2.675|round(2) }} {{ 1234.5|round(-2) }} {{ 7|round(0, 'ceil') }}",),
    ("{{ -3|abs }} {{ -2.5|abs }} {{ [1, 2]|sum }} {{ [1, 2.5]|sum(start=1) }} {{ [{'a': 1}, {'a': 2}]|sum(attribute='a') }}",),
    ("{{ [3, 1, 2]|min }} {{ [3, 1, 2]|max }} {{ ['b', 'A']|min }} {{ []|min }}| {{ [{'a': 3}, {'a': 2}]|max(attribute='a') }}",),
    ("{{ 'abc'|reverse }} {{ [1, 2]|reverse|list }} {{ 1.0|string }} {{ none|string }} {{ [1]|string|length }} {{ missing|string }}|",),
    ("{{ 'a\\nb\\n\\nc'|indent }}|{{ 'a\\nb'|indent(2, true) }}|{{ 'a\\n\\nb'|indent(2, blank=true) }}|{{ 'a\\nb\\n'|indent('> ', first=true) }}|{{ ''|indent }}|{{ 'a\\r\\nb\\u2028c'|indent(1) }}",),
    ("{% for k, v in {'a': 1}|items %}{{ k }}{{ v }}{% endfor %}{{ missing|items|list }}",),
    ("{{ x|tojson }} {{ x|tojson(indent=2) }} {{ [] |tojson(indent=4) }} {{ {}|tojson }}", {"x": {"a": [1, 2.5, None, True, {}], "b": "é<>&'\"\\\n\t\u0001\u007f😀", "c": {"d": []}}}),
    ("{{ x|tojson(ensure_ascii=true) }} {{ x|tojson(sort_keys=true) }} {{ x|tojson(separators=(',', ':')) }} {{ x|tojson(indent='\\t') }} {{ x|tojson(indent=0) }}", {"x": {"b": "é😀\u007f", "a": [1, (2)]}}),
    ("{{ 1|tojson }} {{ 1e20|tojson }} {{ 'a'|tojson }} {{ none|tojson }} {{ (1, 2)|tojson }} {{ {1: 2, true: 3, none: 4, 1.5: 5}|tojson }} {{ 0.1|tojson }} {{ (1e308 * 10)|tojson }}",),
    ("{{ '<b>'|safe }} {{ 'a'|safe + '<b>' }} {{ '<' + 'x'|safe }} {{ ('<a>'|safe) ~ '<b>' }} {{ 'x'|safe == 'x' }} {{ {'a': '<'}|tojson|safe }} {{ ['x'|safe] }}",),
    ("{{ x|sort(attribute='a,b') }} {{ x|sort(attribute='zz') }}", {"x": [{"a": 1, "b": 2}, {"a": 1, "b": 1}, {"a": 0, "b": 9}]}),
    ("{{ none|map('upper')|list }}{{ 0|map|list }}{{ false|select|list }}{{ missing|last }}|",),
    ("{{ missing|upper }}|{{ missing|trim }}|{{ missing|join(',') }}|{{ missing|first }}|{{ missing|map('upper')|list }}|{{ missing|select|list }}|{{ missing|replace('a', 'b') }}|",),
    ("{{ 'ΑΣ ΟΔΟΣ Σ'|lower }} {{ 'élan'|capitalize }} {{ 'ǆ'|capitalize }} {{ 'İ'|lower }}",),
    ("{% set g = [1, 2]|map('string') %}{{ g|list }}{{ g|list }}",),
    ("{{ [1, 2, 3]|select('in', [2, 3])|list }} {{ ['a', 'b']|select('ne', 'a')|first }}",),
]
TESTS = [
    ("{{ x is defined }} {{ y is defined }} {{ y is not defined }} {{ y is undefined }} {{ x is none }} {{ none is none }}", {"x": 1}),
    ("{% for v in [1, 1.5, true, 'a', none, [1], (1,), {'a': 1}, range(2), missing] %}{{ v is string }},{{ v is number }},{{ v is integer }},{{ v is float }},{{ v is boolean }},{{ v is mapping }},{{ v is iterable }},{{ v is sequence }},{{ v is none }},{{ v is true }},{{ v is false }},{{ v is callable }};{% endfor %}",),
    ("{{ 3 is odd }} {{ 3 is even }} {{ 6 is divisibleby(3) }} {{ 6 is divisibleby 4 }} {{ 'a' is lower }} {{ 'A1' is upper }} {{ '1' is lower }}",),
    ("{{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 1 is ge(1) }} {{ 1 is in [1, 2] }} {{ 'a' is in 'abc' }} {{ 3 is gt 1 and 2 is le 2 }}",),
    ("{{ none is sameas none }} {{ true is sameas true }} {{ 1 is sameas true }} {{ not x is defined }} {{ x is not none and true }}",),
    ("{{ [1]|map('string') is iterable }} {{ [1]|map('string') is sequence }} {{ {'a': 1}.items() is sequence }} {{ 'a'.upper is callable }} {{ raise_exception is callable }}",),
]
METHODS = [
    ("{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b c'.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.rsplit(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ ' a\\u2003b\\u00a0'.split() }} {{ 'a b '.split(maxsplit=1) }} {{ 'aXXbXX'.split('XX') }}",),
    ("[{{ ' a '.strip() }}] [{{ ' a '.lstrip() }}] [{{ ' a '.rstrip() }}] [{{ 'xyaxy'.strip('yx') }}] [{{ 'ééaé'.lstrip('é') }}] [{{ 'a\\n\\n'.rstrip('\\n') }}] [{{ ' a'.strip(none) }}]",),
    ("{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.startswith('') }} {{ 'abc'.endswith('d') }}",),
    ("{{ 'aXbX'.replace('X', 'y') }} {{ 'aXbX'.replace('X', 'y', 1) }} {{ ','.join(['a', 'b']) }} {{ 'héllo'.find('l') }} {{ 'a'.find('z') }} {{ 'hello'.rfind('l') }} {{ 'hello'.count('l') }} {{ 'aaa'.count('aa') }} {{ 'abc'.index('c') }} {{ 'ab'.count('') }}",),
    ("{{ 'aB'.upper() }} {{ 'aB'.lower() }} {{ 'aB cD'.title() }} {{ \"they're\".title() }} {{ 'aB'.capitalize() }} {{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'a'.isalpha() }} {{ ''.isdigit() }} {{ ' '.isspace() }} {{ 'A'.isupper() }} {{ 'a1'.islower() }}",),
    ("{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('x') }} {{ 'abc'.rpartition('x') }} {{ 'prefix'.removeprefix('pre') }} {{ 'suffix'.removesuffix('fix') }} {{ 'a\\nb\\r\\nc\\n'.splitlines() }} {{ 'a\\nb'.splitlines(true) }}",),
    ("{{ 'a{}b{}'.format(1, 'x') }} {{ '{1}{0}'.format('a', 'b') }} {{ '{n}={{}}'.format(n=3) }} {{ '{}'.format(none) }}",),
    ("{{ d.get('a') }} {{ d.get('z') }} {{ d.get('z', 'dflt') }} {{ d.items()|list }} {{ d.keys()|list }} {{ d.values()|list }} {{ d.copy() }} {{ d.keys()|length }} {{ 'a' in d.keys() }}", {"d": {"a": 1, "b": [2]}}),
    ("{{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }} {{ (1, 2).index(2) }} {{ [1].copy() }}",),
    ("{{ content.split('</think>')[-1].lstrip('\\n') }}{{ content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] }}", {"content": "<think>\nwhy\n</think>\n\nso"}),
]
FUNCTIONS = [
    ("{{ range(5) }} {{ range(1, 5)|list }} {{ range(5, 0, -2)|list }} {{ range(0)|list }} {{ range(1, 9, 3) }} {{ range(3)[1] }} {{ 2 in range(3) }} {{ range(4)|length }}",),
    ("{{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }} {{ dict([('k', 'v')]) }} {{ dict() }}",),
    ("{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%dT%H:%M:%S %A %B %j %p %I %y %-d %%') }}",),
    ("{{ raise_exception('bad ' ~ 1) }}",),
    ("{% if false %}{{ raise_exception('never') }}{% endif %}ok",),
]
RAISES = [
    ("{{ missing.x }}",), ("{{ missing['x'] }}",), ("{{ missing() }}",), ("{{ missing + 1 }}",), ("{{ 'a' + missing }}",), ("{{ -missing }}",),
    ("{{ none.x.y }}",), ("{{ 1 + 'a' }}",), ("{{ 'a' + 1 }}",), ("{{ 1 < 'a' }}",), ("{{ none < 1 }}",), ("{{ [1] < 2 }}",), ("{{ 1 / 0 }}",),
    ("{{ 1 % 0 }}",), ("{{ 1 // 0 }}",), ("{{ none|length }}",), ("{{ 5|length }}",), ("{{ 5|list }}",), ("{{ none|join }}",),
    ("{% for x in none %}{% endfor %}",), ("{% for x in 5 %}{% endfor %}",), ("{% for a, b in [1] %}{% endfor %}",), ("{% for a, b in [[1]] %}{% endfor %}",),
    ("{{ [].append(1) }}",), ("{{ {}.update({}) }}",), ("{{ 'a'.nothing() }}",), ("{{ 'a'() }}",), ("{{ x[1:] }}", {"x": None}), ("{{ x[1:] }}", {"x": {}}),
    ("{{ missing[1:] }}",), ("{{ [1][::0] }}",), ("{{ missing|tojson }}",), ("{{ range(3)|tojson }}",), ("{{ {}.items()|tojson }}",), ("{{ {(1,): 2}|tojson }}",),
    ("{{ {[]: 1} }}",), ("{% set x = 1 %}{% set x.y = 2 %}",), ("{% set ns = namespace() %}{% set ns._x = 1 %}",), ("{{ namespace(_a=1) }}",),
    ("{{ range(1000000) }}",), ("{{ range(1, 2, 0) }}",), ("{{ 1 in 5 }}",), ("{{ 1 in 'a' }}",), ("{{ [] in {} }}",), ("{{ ','.join([1]) }}",),
    ("{{ 'a'.split('') }}",), ("{{ 'a'.index('b') }}",), ("{{ [1, 'a']|sort }}",), ("{{ [1]|map('upper')|length }}",), ("{{ none|indent }}",),
    ("{{ '%d' % 'x' }}",), ("{{ '%s %s' % 1 }}",), ("{{ '%s' % (1, 2) }}",), ("{{ '{} {}'.format(1) }}",), ("{{ '{x}'.format(1) }}",),
    ("{{ 'a'|round }}",), ("{{ missing|int }}",), ("{{ {}|dictsort(by='x') }}",), ("{{ [1]|dictsort }}",), ("{{ 5|items }}{{ 5|items|list }}",),
    ("{{ [1]|map(attribute='a.b')|list }}",), ("{{ 'x'|upper(1) }}",), ("{{ 1 is divisibleby }}",), ("{{ raise_exception() }}",),
    ("{% if %}{% endif %}",), ("{% if x %}",), ("{{ 1",), ("{{ }}",), ("{% for x %}{% endfor %}",), ("{% endif %}",), ("{% nonsense %}",), ("{# x",),
    ("{{ 'a }}",), ("{{ (1 }}",), ("{{ 1) }}",), ("{% raw %}x",), ("{% set true = 1 %}",), ("{% break %}",), ("{{ 1 2 }}",), ("{{ a b }}",), ("{{ ! }}",),
    ("{% macro m(a=1, b) %}{% endmacro %}",), ("{{ f(a=1, 2) }}",), ("{{ x is string is string }}",), ("{% else %}",), ("{{ {'a' 1} }}",), ("{{ [1 2] }}",),
    ("{% for x in [1] %}{% endif %}{% endfor %}",), ("{% if 1 %}{% endfor %}",), ("{{ x. }}",), ("{{ x[] }}",), ("{% set %}",),
]
GROUPS = {
    "trimming": TRIMMING, "literals": LITERALS, "operators": OPERATORS, "subscripts": SUBSCRIPTS, "statements": STATEMENTS, "macros": MACROS,
    "filters": FILTERS, "tests": TESTS, "methods": METHODS, "functions": FUNCTIONS, "raises": RAISES,
}  # fmt: skip


def constructs() -> list[dict]:
    out = []
    for group, rows in GROUPS.items():
        for i, (source, *variables) in enumerate(rows):
            given = variables[0] if variables else {}
            out.append({"name": f"{group}/{i}", "template": source, "variables": given, **rendered(source, given)})
    return out


TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Current weather, \"now\" & <here>.\nSecond line é.",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "A city's name"},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            "days": {"type": "integer"},
            "options": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": ["number", "null"]}}}},
        }, "required": ["city"]}}},
    {"type": "function", "function": {"name": "stop", "description": "", "parameters": {"type": "object", "properties": {}}}},
]  # fmt: skip
TURNS = [
    ("user", "What is 2 + 2?"),
    ("assistant", "It is 4."),
    ("user", "  Ünïcödé 😀 with spaces \n and a line \n"),
    ("assistant", "<think>\nlet me see\n</think>\n\nFine."),
    ("user", ""),
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def conversations():
    """Message lists of one to five turns, without and with a system message, then a few odd ones and calls of tools."""
    for num_turns in range(1, len(TURNS) + 1):
        for system in (None, "Be brief.", "  Spaces around \n"):
            if system is not None and system.startswith(" ") and num_turns % 2 == 0:
                continue
            head = [] if system is None else [{"role": "system", "content": system}]
            yield head + [{"role": role, "content": text} for role, text in TURNS[:num_turns]]
    yield []
    yield [{"role": "user", "content": [{"type": "text", "text": "part one"}, {"type": "text", "text": " two"}]}]
    yield [{"role": "assistant", "content": "first"}, {"role": "assistant", "content": "second"}]
    yield [{"role": "other", "content": "odd role"}]
    yield [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning_content": "because"}, {"role": "user", "content": "r"}]


def tool_conversation(arguments) -> list[dict]:
    call = {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    return [
        {"role": "user", "content": "Weather in Köln?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": '{"temp": 21.5}'},
        {"role": "assistant", "content": "21.5 degrees."},
        {"role": "user", "content": "Thanks"},
    ]


def real_variables():
    for messages in conversations():
        for prompt in (False, True):
            yield {"messages": messages, "add_generation_prompt": prompt, "tools": None, "documents": None, **TOKENS}
    chat = [{"role": role, "content": text} for role, text in TURNS[:3]]
    yield {"messages": chat, "add_generation_prompt": True, **TOKENS}
    yield {"messages": chat, "add_generation_prompt": True, "enable_thinking": False, "tools": None, **TOKENS}
    for messages in (chat[:1], chat, tool_conversation({"city": "Köln", "days": 2, "deep": {"a": [1.5, None, True]}}), tool_conversation('{"city": "Köln"}')):
        yield {"messages": messages, "add_generation_prompt": True, "tools": TOOLS, "documents": None, **TOKENS}
        yield {"messages": messages, "add_generation_prompt": False, "tools": TOOLS[:1], **TOKENS}
    yield {"messages": tool_conversation({"city": "Köln"})[:3], "add_generation_prompt": True, "tools": TOOLS, **TOKENS}
    own = {"functions": json.dumps(TOOLS, indent=4), "datetime": "Jul 26 2024", "tools": [], "documents": [], **TOKENS}
    for messages in (chat[:1], [{"role": "system", "content": "Be brief."}, *chat]):
        yield {"messages": messages, "add_generation_prompt": True, **own}


def real_templates(folder: Path):
    """(name, source): the files *.jinja, and the templates inside the configurations of tokenizers."""
    for path in sorted(folder.glob("*/templates/*.jinja")):
        yield path.stem, path.read_text(encoding="utf-8")
    for path in sorted(folder.glob("*/tokenizer_config.json")):
        templates = json.loads(path.read_text(encoding="utf-8")).get("chat_template") or []
        for entry in [{"name": "default", "template": templates}] if isinstance(templates, str) else templates:
            yield f"{path.parent.name}/{entry['name']}", entry["template"]


def real(folder: Path) -> list[dict]:
    variables = list(real_variables())
    out = []
    for name, source in real_templates(folder):
        cases = [{"variables": i, **rendered(source, given)} for i, given in enumerate(variables)]
        out.append({"name": name, "template": source, "cases": cases})
    return [{"variables": variables}, *out]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--real", nargs=2, type=Path, metavar=("FOLDER", "OUT"))
    options = parser.parse_args()
    if options.real:
        folder, out = options.real
        value = real(folder)
    else:
        out = Path(__file__).resolve().parents[2] / "tests" / "golden" / "chat_template" / "constructs.json"
        value = constructs()
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in value)
    out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{out}: {len(value)} rows", file=sys.stderr)


if __name__ == "__main__":
    main()

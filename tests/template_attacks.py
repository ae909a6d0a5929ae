"""Chat templates that are made to do harm: to get out of the sandbox, or to never come to an end.

Started as a program, it renders those of the first kind and writes down every door they knocked at:
a line for each file, process, socket or import, and one for each that found the secret.
"""

import os
import sys

SECRET = "the-secret-of-this-test"
MARKER = "template-was-here"

_CLASS = "''.__class__"
_BASE = f"{_CLASS}.__mro__[1]"
_RUN = f"touch {MARKER}"

ESCAPES = (
    f"{_CLASS}",
    f"{_CLASS}.__mro__",
    f"{_CLASS}.__base__.__subclasses__()",
    f"{_BASE}.__subclasses__()",
    f"{_BASE}.__subclasses__()[40]('/etc/passwd').read()",
    "''['__class__']",
    "''|attr('__class__')",
    "''|attr('__cla' ~ 'ss__')",
    "''|attr('\\x5f\\x5fclass\\x5f\\x5f')",
    "''|attr(['__','class','__']|join)",
    "''|attr('__class__')|attr('__mro__')|attr('__getitem__')(1)|attr('__subclasses__')()",
    "()|attr('__class__')|attr('__base__')",
    "[].__class__.__base__",
    "{}.__class__.__bases__[0]",
    "().__class__.__bases__[0].__subclasses__()",
    "(1).__class__.__base__",
    "1.0.__class__.__mro__[-1]",
    "true.__class__.mro()",
    "self.__init__.__globals__",
    "self._TemplateReference__context",
    "self._TemplateReference__context.environment",
    "self.__init__.__globals__.__builtins__.open('/etc/passwd').read()",
    "self.__dict__",
    f"cycler.__init__.__globals__.os.system('{_RUN}')",
    f"cycler.__init__.__globals__.os.popen('{_RUN}').read()",
    "cycler.__init__.__globals__.os.environ",
    f"joiner.__init__.__globals__.os.popen('{_RUN}').read()",
    f"namespace.__init__.__globals__.os.popen('{_RUN}').read()",
    f"lipsum.__globals__['os'].popen('{_RUN}').read()",
    f"lipsum.__globals__.os.system('{_RUN}')",
    f"lipsum|attr('__globals__')|attr('get')('os')|attr('popen')('{_RUN}')",
    "lipsum.__globals__.__builtins__.__import__('os').environ",
    "lipsum.__builtins__",
    "lipsum.__code__.co_consts",
    f"range.__class__.__base__.__subclasses__()[132].__init__.__globals__['popen']('{_RUN}')",
    "range.__self__",
    "dict.__base__.__subclasses__()",
    "dict.mro()",
    f"raise_exception.__globals__['__builtins__']['exec']('import os; os.system(\"{_RUN}\")')",
    "raise_exception.__globals__",
    "raise_exception.__code__",
    "raise_exception.__closure__",
    "raise_exception.__kwdefaults__",
    "strftime_now.__globals__",
    "strftime_now.__globals__.datetime",
    f'strftime_now.__globals__.__builtins__.eval(\'__import__("os").system("{_RUN}")\')',
    "strftime_now.__func__",
    "strftime_now.__code__.replace(co_code='')",
    "strftime_now('%Y').__class__",
    "messages.__class__.__mro__",
    "messages.__init__",
    "messages.append({'role': 'system', 'content': 'obey'})",
    "messages.clear()",
    "messages.__setitem__(0, 1)",
    "messages.pop()",
    "messages[0].update({'role': 'system'})",
    "messages[0].__class__.__base__",
    "messages[0].setdefault('x', 1)",
    "messages|map(attribute='__class__')|list",
    "messages|map('attr', '__class__')|list",
    "messages|map(attribute='content.__class__.__mro__')|list",
    "messages|groupby('__class__')|list",
    "messages|selectattr('__class__')|list",
    "messages|sort(attribute='__class__')|list",
    "[messages]|sum(attribute='__class__', start='')",
    "messages[0].content.format.__self__.__class__",
    "'{0.__class__.__mro__}'.format('')",
    "'{a.__class__}'.format(a='')",
    "'{0.__init__.__globals__}'.format(raise_exception)",
    "'{x.__class__}'.format_map({'x': 1})",
    "('{0.__class__}'|safe).format('')",
    "'%s'|format(''.__class__)",
    "(''.format)('{0.__class__}')",
    "[''.format]|map('attr', '__self__')|list",
    "''.join.__self__.__class__",
    "messages|tojson|attr('__class__')",
    "config",
    "config.items()",
    "request.application.__globals__.__builtins__",
    "url_for.__globals__",
    "get_flashed_messages.__globals__",
    f"__import__('os').system('{_RUN}')",
    "open('/etc/passwd').read()",
    f'eval(\'__import__("os").system("{_RUN}")\')',
    "loop.__init__.__globals__",
    "caller.__globals__",
    "(x for x in [1]).gi_frame.f_builtins",
    "undefined_name.__init__.__globals__",
    "undefined_name.__class__.__init__.__globals__.sys.modules.os.environ",
)
STATEMENTS = (
    "{% include '/etc/passwd' %}",
    "{% include ['/proc/self/environ', '../../etc/passwd'] %}",
    "{% import 'os' as os %}{{ os.environ }}",
    "{% from 'os' import environ %}{{ environ }}",
    "{% extends '/etc/passwd' %}",
    "{% set c = ''.__class__ %}{{ c.__mro__ }}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}{{ n.__class__ }}",
    "{% for c in ''.__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}{{ m._func.__globals__ }}",
    "{% with a = messages.__class__ %}{{ a.__base__.__subclasses__() }}{% endwith %}",
    "{% for m in messages %}{{ loop._iterator.gi_frame }}{{ loop.__class__ }}{% endfor %}",
    "{% filter attr('__class__') %}x{% endfilter %}",
    "{% block b %}{{ self.b.__func__.__globals__ }}{% endblock %}",
    "{% debug %}",
    "{% do messages.append(1) %}",
)

_ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
BOMBS = {
    "nested loops": _ENDLESS,
    "loops that write": _ENDLESS.replace("{% endfor %}", "aaaa{% endfor %}", 1),
    "a power": "{{ 10 ** (10 ** 9) }}",
    "a power at run time": "{{ (messages|length + 9) ** (messages|length * 10 ** 9) }}",
    "a product": "{{ 'a' * 10 ** 10 }}",
    "a product at run time": "{{ messages[0].content * 10 ** 9 }}",
    "a list": "{{ [0] * 10 ** 9 }}",
    "doubling": "{% set n = namespace(x='a') %}{% for a in range(60) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "a long answer": "{{ 'a' * 10 ** 7 }}",
    "macros without end": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "macros that double": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
    "{% endmacro %}{{ m(60) }}",
    "a recursive loop": "{% for a in [1, 2, 3] recursive %}{{ loop([a, a, a]) }}{% endfor %}",
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "many words": "{{ lipsum(n=10 ** 7) }}",
    "a wide indent": "{{ messages|tojson(indent=10 ** 9) }}",
    "deep parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
}


def attempts() -> list[str]:
    """All templates that try to get out."""
    return ["{{ " + expression + " }}" for expression in ESCAPES] + list(STATEMENTS)


def main() -> None:
    from inference.errors import InferenceError
    from inference.template import ChatTemplate
    from inference.types import Message

    watching = False
    doors = ("open", "os.", "subprocess.", "socket.", "import", "ctypes.", "shutil.", "pty.")

    def watch(event: str, arguments: tuple) -> None:
        if watching and event.startswith(doors):
            print(event, arguments)

    def render(source: str) -> str:
        nonlocal watching
        try:
            template = ChatTemplate(source, (), "", "")
            watching = True
            prompt = template.render((Message("user", "hi"),), (), {})
            return "".join(segment.text for segment in prompt.segments)
        except InferenceError as error:
            return error.message
        finally:
            watching = False

    os.environ["SECRET"] = SECRET
    render("{{ 1 / 0 }}")  # what jinja2 imports for its first error
    sys.addaudithook(watch)
    for source in attempts():
        if SECRET in (said := render(source)) or "root:" in said:
            print("got out:", source)


if __name__ == "__main__":
    main()

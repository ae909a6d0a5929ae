"""What Markdown becomes: the parser and the colours of code, in the browser that runs them."""

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOW = """async (text) => {
  const { StreamingMarkdown } = await import('/page/stream.js');
  const box = document.createElement('div');
  new StreamingMarkdown(box).update(text, true);
  return box.innerHTML;
}"""
STREAM = """async (text, size) => {
  const { StreamingMarkdown } = await import('/page/stream.js');
  const box = document.createElement('div');
  const stream = new StreamingMarkdown(box);
  for (let at = size; at < text.length; at += size) stream.update(text.slice(0, at));
  stream.update(text, true);
  const whole = document.createElement('div');
  new StreamingMarkdown(whole).update(text, true);
  box.normalize();
  whole.normalize();
  return [box.innerHTML, whole.innerHTML];
}"""
PIECES = """async (text, language) => {
  const { grammarOf, highlight } = await import('/page/highlight.js');
  let state = null;
  const all = [];
  for (const line of text.split('\\n')) {
    const [pieces, next] = highlight(line, grammarOf(language), state);
    all.push(pieces);
    state = next;
  }
  return all;
}"""


def plain(html: str) -> str:
    return html.replace(' dir="auto"', "")


LINK = 'target="_blank" rel="noopener noreferrer"'


def link(address: str, text: str) -> str:
    return f'<a href="{address}" title="{address}" {LINK}>{text}</a>'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Hello", "<p>Hello</p>"),
        ("a\nb\n\nc", "<p>a<br>b</p><p>c</p>"),
        ("# One\n### Three ###\n#No", "<h1>One</h1><h3>Three</h3><p>#No</p>"),
        (
            "**b** *i* ***bi*** ~~s~~",
            "<p><strong>b</strong> <em>i</em> <em><strong>bi</strong></em> <del>s</del></p>",
        ),
        ("snake_case_name 2*3*4", "<p>snake_case_name 2<em>3</em>4</p>"),
        ("**中文：**后面", "<p><strong>中文：</strong>后面</p>"),
        ("5 * 3 * 2", "<p>5 * 3 * 2</p>"),
        ("`a<b` and ``x`y``", "<p><code>a&lt;b</code> and <code>x`y</code></p>"),
        ("`open and **bold**", "<p>`open and <strong>bold</strong></p>"),
        (
            "[a **b**](https://x.org/ 'T')",
            f"<p>{link('https://x.org/', 'a <strong>b</strong>')}</p>",
        ),
        ("[a](javascript:alert(1))", "<p>a (javascript:alert(1))</p>"),
        ("[a](/here)", "<p>a (/here)</p>"),
        (
            "see https://x.org/a_b_c.",
            f"<p>see {link('https://x.org/a_b_c', 'https://x.org/a_b_c')}.</p>",
        ),
        ("![cat](https://x.org/c.png)", f"<p>{link('https://x.org/c.png', '🖼 cat')}</p>"),
        ("<b>x</b> &amp; &lt;", "<p>&lt;b&gt;x&lt;/b&gt; &amp; &lt;</p>"),
        (r"\*a\* \\ \# $a_1 * b_2$", r'<p>*a* \ # <span class="math">$a_1 * b_2$</span></p>'),
        (r"so \(x_1\) is", r'<p>so <span class="math">\(x_1\)</span> is</p>'),
        ("it costs $5 and $6", "<p>it costs $5 and $6</p>"),
        (
            "- a\n- b\n  - c\n    - d\n- e",
            "<ul><li>a</li><li>b<ul><li>c<ul><li>d</li></ul></li></ul></li><li>e</li></ul>",
        ),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("1. a\n   - b\n2. c", "<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"),
        ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
        ("text\n- a", "<p>text</p><ul><li>a</li></ul>"),
        (
            "- [x] done\n- [ ] open",
            '<ul><li class="task"><input type="checkbox" disabled=""> done</li>'
            '<li class="task"><input type="checkbox" disabled=""> open</li></ul>',
        ),
        (
            "> a\n> > b\n\nc",
            "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>",
        ),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        (
            "| a | b |\n|:-:|--:|\n| 1 | **2** |\n| 3 |",
            '<div class="table" tabindex="0"><table><thead>'
            '<tr><th class="align-center">a</th><th class="align-right">b</th></tr></thead><tbody>'
            '<tr><td class="align-center">1</td>'
            '<td class="align-right"><strong>2</strong></td></tr>'
            '<tr><td class="align-center">3</td>'
            '<td class="align-right"></td></tr></tbody></table></div>',
        ),
        ("$$\na_1 * b\n$$", '<pre class="math">$$\na_1 * b\n$$</pre>'),
    ],
)
async def test_markdown_becomes(workshop, text, html):
    assert plain(await workshop.run(SHOW, text)) == html


async def test_code_has_its_language_and_is_left_as_it_is(workshop):
    html = await workshop.run(SHOW, "```js title=x\nlet a = '<i>';\n\n\tb\n```\nafter")
    assert '<span class="language">js</span>' in html
    assert "&lt;i&gt;" in html
    assert html.endswith('<p dir="auto">after</p>')


SAMPLE = """# Title

Some **bold**, `code` and a [link](https://example.org/a).

1. one
   ```python
   def f():
       return 1
   ```
2. two
   - inner

| a | b |
|---|---|
| 1 | 2 |

```js
const a = `x
y`; /* c
d */ let b = 1;
```
> quote
> goes on

- [ ] task
- last **open

1. loose

2. list
"""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
async def test_a_stream_ends_as_the_whole_text_does(workshop, size):
    streamed, whole = await workshop.run(STREAM, SAMPLE, size)
    assert streamed == whole


@pytest.mark.parametrize(
    ("language", "code", "kinds"),
    [
        (
            "python",
            "def f(x):  # hi\n    return 'a' + str(1)",
            "def=keyword  f=function  # hi=comment  return=keyword  'a'=string  str=type  1=number",
        ),
        ("js", "const a = `x\ny`; // c", "const=keyword  `x=string  y`=string  // c=comment"),
        ("ts", "interface A { b: string }", "interface=keyword  string=type"),
        ("json", '{"a": [1, true, "b"]}', '"a"=attribute  1=number  true=number  "b"=string'),
        (
            "bash",
            'if [ "$A" ]; then echo $B; fi # x',
            'if=keyword  "$A"=string  echo=type  $B=attribute  # x=comment',
        ),
        (
            "html",
            '<!-- a\nb --><p class="x">t</p>',
            '<!-- a=comment  b -->=comment  <p=keyword  class=attribute  "x"=string',
        ),
        ("css", ".a { color: #fff; }", ".a=type  color=attribute  #fff=number"),
        (
            "sql",
            "SELECT a FROM t WHERE b = 'c' -- d",
            "SELECT=keyword  FROM=keyword  'c'=string  -- d=comment",
        ),
        (
            "c",
            "#include <a.h>\nint f(void) { return 0; }",
            "#include <a.h>=attribute  int=type  f=function  return=keyword",
        ),
        (
            "c++",
            "std::vector<int> v; /* a\nb */",
            "vector=type  int=type  /* a=comment  b */=comment",
        ),
        ("go", "func main() { x := nil }", "func=keyword  main=function  nil=number"),
        (
            "rust",
            "fn f<'a>(x: &'a str) { println!(\"x\"); }",
            "fn=keyword  'a=type  str=type  println!=function",
        ),
        (
            "java",
            "@Override public int f() { return 1; }",
            "@Override=attribute  public=keyword  int=type",
        ),
        (
            "yaml",
            "a: 1 # c\nb-c: 'd'",
            "a=attribute  1=number  # c=comment  b-c=attribute  'd'=string",
        ),
        ("a language that nobody knows", "def f(): pass", "def f(): pass="),
    ],
)
async def test_code_is_coloured(workshop, language, code, kinds):
    lines = await workshop.run(PIECES, code, language)
    assert ["".join(text for _, text in line) for line in lines] == code.split("\n")
    found = {text.strip(): kind for line in lines for kind, text in line}
    expected = [kind.rpartition("=")[::2] for kind in kinds.split("  ")]
    assert [(text, found.get(text)) for text, _ in expected] == expected


SPENT = """async (text, steps) => {
  const { StreamingMarkdown } = await import('/page/stream.js');
  let made = 0;
  for (const name of ['createElement', 'createTextNode']) {
    const make = Document.prototype[name];
    Document.prototype[name] = function (...given) {
      made += 1;
      return make.apply(this, given);
    };
  }
  const counted = (steps) => {
    made = 0;
    const stream = new StreamingMarkdown(document.createElement('div'));
    for (let at = 1; at < steps; at += 1) {
      stream.update(text.slice(0, Math.floor((text.length * at) / steps)));
    }
    stream.update(text, true);
    return made;
  };
  return [counted(1), counted(steps)];
}"""


@pytest.mark.parametrize(
    "part",
    ["A paragraph with **bold** and `code`.\n\n", "```js\nconst a = 1; // b\n```\n\n", "x = 1\n"],
    ids=["paragraphs", "blocks of code", "one block of code"],
)
async def test_a_stream_makes_little_twice(workshop, part):
    """Counted, not timed: 100 KB in 1,000 steps cost a few times what they cost at once."""
    text = part * (100_000 // len(part))
    if part.startswith("x"):
        text = f"```python\n{text}"
    once, streamed = await workshop.run(SPENT, text, 1000)
    assert streamed < 4 * once + 20_000

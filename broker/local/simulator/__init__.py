"""A provider to develop and test against: an HTTP server that answers like OpenAI, breaks as told and keeps an invoice.

It imports nothing of this product, and prices from its own table in whole pico-dollars, so that its invoice can
judge the product's ledger. Start reading at `decisions.py`; `server.py` is the HTTP side.

    python -m broker.local.simulator --port 0 [--host 127.0.0.1] [--behaviour FILE] [--calls FILE]

prints `{"event": "simulator.ready", "url": "http://127.0.0.1:PORT"}` once it serves, and exits at SIGTERM. Exit codes:
0 stopped, 2 wrong use or behaviour, 3 the port or the file of calls cannot be had.

## What it serves
`POST /v1/chat/completions` (also streamed), `/v1/embeddings`, `/v1/responses`, `/v1/moderations`; `GET /v1/models`.
Any bearer key is good unless the behaviour lists it. Prompt tokens come from the text alone (four bytes of UTF-8 are a
token, four tokens a message, three a request), so that asking again counts the same. An answer's `x-request-id` header
is the id in its body. Answers never exceed the request's token limit (`finish_reason: length`).

- `GET /sim/calls?since=N`: the invoice from row N (0) on, as JSON lines in the order of opening: `request_id` (the
  `X-Client-Request-Id` as received, or null), `id`, `model`, `path`, `prompt_tokens`, `cached_tokens`, `output_tokens`,
  `reasoning_tokens`, `status` (null while open or cut), `opened`, `closed` (unix seconds; null while open), `usage` (as
  it was sent, or null), `cost` (US dollars, exact decimal string), `outcome` (`open`, `answered`, `cut`: we cut the
  line, `client_gone`: the client did), `fault` (the one that struck, or null).
  Charged is each good answer that went out whole, streamed ones also where no usage was asked for. Errors, cuts,
  answers that nobody could read and calls whose client went away cost nothing. `prompt_tokens` is told for all.
- `GET /sim/stats`: `calls`, `open`, `max_open`, `by_status`, `by_outcome`, `cost`.
- `GET /sim/behaviour`, `PUT /sim/behaviour`: what is in force; a new one, whole, as YAML or JSON. A wrong one answers
  400 with `{"error": sentence}` and changes nothing. Buckets keep what they hold and jobs their counts.
- `POST /sim/reset`: forgets calls (the file, too), buckets and counts; the behaviour stays.

`--calls FILE` appends closed calls to FILE as JSON lines, at most 50 ms later, and reads them back at the next start.

## The behaviour
Every field with its default; an amount is a number or two bounds `[low, high]` between which one is drawn for each call.
```yaml
seed: 0                    # of everything that is drawn
any_model: false           # true: unknown models are served, free of charge; false: 404 model_not_found
keys: {bad: [], no_quota: []}    # bearer keys that get 401 invalid_api_key, or 429 insufficient_quota
default:                   # how models behave that are not named below
  latency: {kind: fixed, ms: 0}  # from request to answer, planned errors too, refusals by limits, keys or checks not; or
                           # {kind: uniform, low_ms: _, high_ms: _}
                           # {kind: lognormal, median_ms: _, sigma: 0.5, max_ms: 600000}
  answer:
    text: null             # exactly this text; null: words of text_bytes
    text_bytes: 200        # amount
    output_tokens: null    # amount; null: four bytes a token
    cached_tokens: 0       # amount, at most the prompt; charged as cached input
    reasoning_tokens: 0    # amount, added to the output and charged as such
    stream_chunk_bytes: 20 # text in each event of a stream
    stream_gap_ms: 0       # between the events of a stream
  limits:                  # for each key and model apart; all calls that pass count, failed ones too
    rpm: null              # requests a minute, in a bucket that fills steadily and starts full
    tpm: null              # tokens a minute: prompt tokens + the request's token limit
    burst_s: 60            # how many seconds' worth the buckets hold
    headers: always        # x-ratelimit-*: always, after_429 (from the first refusal on), never
    retry_after: seconds   # how a 429 says when: seconds, date, milliseconds (retry-after-ms), none
    count_refused: false   # true: refused calls take from the requests, too
  faults: {}               # name: share of all calls, together at most 1, such as {"500": 0.05, stall: 0.01}
  fail_first: {calls: 0, fault: "500"}  # the first calls of each job (X-Client-Request-Id up to its last slash; without
                           # one, the same body) meet this fault
  fault_retry_after_s: null     # planned 429, 503 and 529 say this, in the way of limits.retry_after
  drip: {bytes: 1, every_ms: 100}    # how the fault drip sends
  oversized_bytes: 32000000     # what the fault oversized adds to the answer, as white space
  price: null              # {input: _, cached_input: _, output: _} in pico-dollars a token, in place of the table's
models:                    # by name; a section that is given replaces the default's whole section
  gpt-4o-mini: {latency: {ms: 300}}
```
Faults: the statuses 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529; `insufficient_quota` (429);
`stall` (never answers), `cut_before` (cuts the line instead of answering), `cut_middle` (half of the body, then cut),
`length_over` (content-length is 1,000 more than what comes, then closed), `length_under` (content-length is half of what
comes, then closed), `drip` (a good answer in small pieces), `malformed` (half of the JSON), `garbage` (bytes that are no
text), `wrong_shape` (JSON of another shape), `oversized` (a good answer followed by white space).
"""

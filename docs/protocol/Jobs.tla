-------------------------------- MODULE Jobs --------------------------------
(***************************************************************************)
(* The life of one job: its document in MongoDB, and the workers that      *)
(* insert, take, call, finish, publish and sweep, under faults.            *)
(*                                                                         *)
(* One document is enough, because every write that moves a job is one     *)
(* atomic write to one document; jobs meet only in leases, which are here. *)
(* A write by a worker has three fates (`Write`): answered; executed with  *)
(* the answer lost; executed later or never. Writes whose slow answer can  *)
(* meet the audit (insert, take) are answered in a step of their own.      *)
(*                                                                         *)
(* Time is counted in ticks of one renewal period. A tick renews the lease *)
(* of every worker that runs and reaches the database, so that time is     *)
(* seen only where something is wrong. A lease lives for three ticks.      *)
(*                                                                         *)
(* `Without` names the rules that are left out, to see what they are for.  *)
(***************************************************************************)
EXTENDS Integers, Sequences, FiniteSets, TLC

CONSTANTS
  Workers,      \* incarnations
  Nobody,
  Unborn,       \* those of them that may start later
  Records,      \* how often the job was submitted: records 1..Records with one id, each with a reply address of its own
  Control,      \* control records for it, a sequence of "cancel", "reply", "rerun"; and of its scope: "pause", "resume", "stop" (a batch is cancelled)
  Scope,        \* what is paused or stopped: its "batch", or its "tenant" (or everything, which is the same)
  Deadline,     \* whether it has a deadline that may pass
  AtMostOnce,   \* whether the job is `execution: at_most_once`
  SlowReads,    \* whether reads that decide are answered in a step of their own
  MaxTakeovers, \* so many workers may be lost with the job
  Crashes, Pauses, Outages, Losses, Lates, Errors, Rebalances, HandBacks, Drains, \* how often what may go wrong does
  Without

VARIABLES
  doc,       \* the job's document, by majority
  ledger,    \* rows [g, f, billed]; [g, f] is the key
  events,    \* what the reply topics hold: [g, to, content]
  calls,     \* provider calls that did not end in an error answer: [w, g, f, i]
  mode,      \* of each incarnation: "unborn", "up", "paused", "gone"
  hurt,      \* incarnations that were ever stopped or killed
  lease,     \* their leases: [st, left], `left` in ticks by the server's clock
  clock,     \* their own view: ticks since the last good renewal was sent, ticks since the last gap
  mem,       \* what each has in memory
  db,        \* whether the database answers
  committed, \* the group's offset
  reader,    \* who has the partition
  handled,   \* control records that are acknowledged
  halt,      \* the mark of the scope: [st, seq, told]; `told`: documents that were there know of it
  passed,    \* whether the deadline has passed
  late,      \* writes that may still be executed
  spare      \* faults that are left

vars == <<doc, ledger, events, calls, mode, hurt, lease, clock, mem, db, committed, reader, handled, halt, passed, late, spare>>

Keeps(rule) == rule \notin Without

NoControl == <<>>
CancelOnly == <<"cancel">>
ReplyOnly == <<"reply">>
CancelRerun == <<"cancel", "rerun">>
CancelReplyRerun == <<"cancel", "reply", "rerun">>
Rerun == <<"rerun">>
PauseOnly == <<"pause">>
PauseResume == <<"pause", "resume">>
PauseCancel == <<"pause", "cancel">>
StopOnly == <<"stop">>

Symmetric == Permutations(Workers \ Unborn)
NoToken == <<>>

(***************************************************************************)
(* The document                                                            *)
(***************************************************************************)
Absent == [st |-> "absent", own |-> Nobody, f |-> 0, g |-> 1, due |-> FALSE, to |-> {}, cancel |-> FALSE, seq |-> 0, called |-> FALSE,
           lost |-> 0, payload |-> FALSE, out |-> NoToken, k |-> 0, expires |-> FALSE, again |-> FALSE, parked |-> FALSE]
Stub == [Absent EXCEPT !.st = "announced", !.expires = TRUE]

Terminal(d) == d.st \in {"succeeded", "cancelled", "expired", "dead", "outcome_unknown"}
Mine(d, w, f) == d.own = w /\ d.f = f
Content(d) == <<d.f, d.st>>

CanRunAgain(d) ==
  /\ Terminal(d)
  /\ Keeps("rerun awaits the outbox") => d.out = NoToken
  /\ Keeps("rerun needs the payload") => d.payload

NextGeneration(d) ==
  [d EXCEPT !.st = "waiting", !.own = Nobody, !.g = @ + 1, !.lost = 0, !.due = TRUE, !.called = FALSE, !.out = NoToken, !.again = FALSE, !.parked = FALSE,
            !.f = IF Keeps("rerun keeps the fence") THEN @ ELSE 0,
            !.cancel = IF Keeps("rerun takes marks off") THEN FALSE ELSE @,
            !.expires = IF Keeps("rerun stays the expiry") THEN FALSE ELSE @]

\* Every write as a record: what it does, who sent it, and its arguments.
Op(do, w) == [do |-> do, w |-> w, f |-> 0, r |-> 0, n |-> 0, claim |-> FALSE, due |-> FALSE, park |-> FALSE, keep |-> FALSE, res |-> "", tok |-> NoToken, to |-> {}, v |-> Nobody, ok |-> TRUE]

Matches(op, d) ==
  CASE op.do = "insert" -> d.st = "absent"
    [] op.do = "merge" -> d.st = "announced"
    [] op.do = "take" -> d.st = "waiting" /\ d.due
    [] op.do \in {"adopt", "mark", "finish"} -> d.st = "claimed" /\ Mine(d, op.w, op.f)
    [] op.do = "wait" -> d.st = "claimed" /\ Mine(d, op.w, op.f) /\ (Keeps("wait spares a cancelled job") => ~d.cancel)
    [] op.do = "clear" -> /\ d.out # NoToken
                          /\ Keeps("clear compares the token") => d.out = op.tok
                          /\ Keeps("clear compares the replies") => d.to = op.to
    [] op.do = "reply" -> op.r \notin d.to \/ Terminal(d)
    [] op.do = "cancel" -> Keeps("control compares the offset") => d.seq < op.n
    [] op.do = "rerun" -> d.seq < op.n /\ Terminal(d) /\ (d.payload \/ CanRunAgain(d))
    [] op.do = "rerun_published" -> d.again /\ CanRunAgain(d)
    [] op.do = "sweep" -> d.st = "claimed" /\ d.own = op.v
    [] op.do = "overdue" -> d.st = "waiting" /\ ~d.due
    [] op.do = "park" -> d.st = "waiting" /\ ~d.cancel
    [] op.do = "unpark" -> d.parked
    [] op.do = "tell" -> ~d.cancel /\ (IF op.res = "paused" THEN d.st = "waiting" /\ d.due ELSE d.st \in {"waiting", "claimed"})
    [] OTHER -> FALSE

Replied(d, r) == [d EXCEPT !.to = @ \cup {r},
                           !.out = IF Terminal(d) THEN <<d.f, d.k + 1>> ELSE @,
                           !.k = IF Terminal(d) THEN @ + 1 ELSE @,
                           !.expires = IF Terminal(d) /\ Keeps("a new reply stays the expiry") THEN FALSE ELSE @]

Changed(op, d) ==
  CASE op.do = "insert" ->
         [Absent EXCEPT !.st = IF op.claim THEN "claimed" ELSE "waiting", !.own = IF op.claim THEN op.w ELSE Nobody,
                        !.f = IF op.claim THEN 1 ELSE 0, !.due = ~op.claim /\ ~op.park, !.parked = op.park, !.to = {op.r}, !.payload = TRUE]
    [] op.do = "merge" ->
         [d EXCEPT !.st = IF op.claim THEN "claimed" ELSE "waiting", !.own = IF op.claim THEN op.w ELSE Nobody, !.f = @ + 1,
                   !.due = ~op.claim /\ (~op.park \/ d.cancel), !.parked = op.park, !.to = @ \cup {op.r}, !.payload = TRUE, !.expires = FALSE]
    [] op.do = "adopt" -> [d EXCEPT !.f = IF Keeps("adopt raises the fence") THEN @ + 1 ELSE @]
    [] op.do = "take" -> [d EXCEPT !.st = "claimed", !.own = op.w, !.f = IF Keeps("take raises the fence") THEN @ + 1 ELSE @,
                                !.due = FALSE, !.parked = FALSE]
    [] op.do = "mark" -> [d EXCEPT !.called = TRUE]
    [] op.do = "wait" -> [d EXCEPT !.st = "waiting", !.own = Nobody, !.due = op.due /\ ~op.park, !.parked = op.park, !.called = op.keep /\ @]
    [] op.do = "finish" -> [d EXCEPT !.st = op.res, !.out = op.tok, !.payload = op.res # "succeeded"]
    [] op.do = "clear" -> [d EXCEPT !.out = NoToken, !.expires = TRUE]
    [] op.do = "reply" -> Replied(IF d.st = "absent" THEN Stub ELSE d, op.r)
    [] op.do = "cancel" ->
         IF Terminal(d) THEN [d EXCEPT !.seq = op.n, !.again = FALSE]
         ELSE [(IF d.st = "absent" THEN Stub ELSE d) EXCEPT
                 !.cancel = TRUE, !.seq = op.n, !.due = IF Keeps("a cancel makes due") THEN d.st = "waiting" ELSE @]
    [] op.do = "rerun" -> [(IF CanRunAgain(d) THEN NextGeneration(d) ELSE [d EXCEPT !.again = TRUE]) EXCEPT !.seq = op.n]
    [] op.do = "rerun_published" -> NextGeneration(d)
    [] op.do = "sweep" -> [d EXCEPT !.st = "waiting", !.own = Nobody, !.due = TRUE, !.lost = @ + 1]
    [] op.do = "overdue" -> [d EXCEPT !.due = TRUE]
    [] op.do = "park" \/ (op.do = "tell" /\ op.res = "paused") -> [d EXCEPT !.due = FALSE, !.parked = TRUE]
    [] op.do = "unpark" -> [d EXCEPT !.due = d.st = "waiting", !.parked = FALSE]
    [] op.do = "tell" -> [d EXCEPT !.cancel = TRUE, !.due = d.st = "waiting"]

Applied(op, d) == IF Matches(op, d) THEN Changed(op, d) ELSE d

\* The ledger refuses a key that is there.
WithRow(g, f, billed) == IF \E row \in ledger : row.g = g /\ row.f = f THEN ledger ELSE ledger \cup {[g |-> g, f |-> f, billed |-> billed]}

(***************************************************************************)
(* What a worker has in memory                                             *)
(***************************************************************************)
Even == [age |-> 0, even |-> 3]
NoHalt == [st |-> "", seq |-> 0, told |-> FALSE]
NoRecord == [r |-> 0, ph |-> "", ours |-> FALSE]
Blank == [held |-> FALSE,      \* the registry has the id
          tasks |-> {},        \* claims on their way through the pipeline and the finisher
          pubs |-> {},         \* finished jobs on their way out
          rec |-> NoRecord,    \* the record that the reader has in hand
          taken |-> 0,         \* the fence under which a take was executed whose answer is on its way
          unheld |-> 0,        \* the fence that the audit has read
          sweeps |-> {},       \* owners that the sweep is about to put away
          asks |-> FALSE,      \* it asked for expired leases
          dead |-> Nobody,     \* whom it is about to declare dead
          unmoved |-> TRUE,    \* whether that lease is as it was read
          knows |-> NoHalt,    \* the mark, as it has learnt of it
          drains |-> FALSE]    \* whether it knows that it is to end after its last call

\* A claim as it is read back. `res` is how it will end without a call, "" where it is to be called.
Task(d) == [g |-> d.g, f |-> d.f, ph |-> "ready", due |-> TRUE, park |-> FALSE, keep |-> FALSE, called |-> d.called, to |-> d.to,
            res |-> IF d.cancel THEN "cancelled" ELSE IF d.lost >= MaxTakeovers THEN "dead"
                    ELSE IF AtMostOnce /\ d.called THEN "outcome_unknown" ELSE ""]

Publication(d) == [g |-> d.g, content |-> Content(d), billed |-> d.st = "succeeded", f |-> d.f, to |-> d.to, tok |-> d.out,
                   row |-> d.st # "succeeded", told |-> FALSE]

Runs(w) == mode[w] = "up"
Reaches(w) == Runs(w) /\ db
Healthy(w) == clock[w].age < 2
Dead(v) == lease[v].st # "held"
Lost(v) == (mode[v] = "gone" /\ v \in hurt) \/ lease[v].st = "fenced"
MayDeclare(w) == Keeps("a gap forbids to declare") => clock[w].age <= 1 /\ clock[w].even >= 3

With(w, m) == mem' = [mem EXCEPT ![w] = m]
Moved(w, t, u) == [mem[w] EXCEPT !.tasks = (@ \ {t}) \cup {u}]
Dropped(w, t) == [mem[w] EXCEPT !.tasks = @ \ {t}, !.held = FALSE]

\* The three fates of a write: `answered` and `doubtful` say what becomes of the sender's memory.
Write(op, w, answered, doubtful) ==
  \/ doc' = Applied(op, doc) /\ With(w, answered) /\ UNCHANGED <<late, spare>>
  \/ spare.losses > 0 /\ doc' = Applied(op, doc) /\ With(w, doubtful) /\ spare' = [spare EXCEPT !.losses = @ - 1] /\ UNCHANGED late
  \/ spare.lates > 0 /\ late' = late \cup {op} /\ With(w, doubtful) /\ spare' = [spare EXCEPT !.lates = @ - 1] /\ UNCHANGED doc

Halted(w) == mem[w].knows.st # ""
Paused(w) == mem[w].knows.st = "paused"
Parks(w) == Paused(w) /\ Scope = "batch"

outside == <<mode, hurt, lease, clock, db>>
marks == <<halt, passed>>
inlets == <<committed, reader, handled, halt, passed>>

(***************************************************************************)
(* Reader and intake                                                       *)
(***************************************************************************)
Registered(w) == [mem[w] EXCEPT !.held = TRUE, !.rec.ours = TRUE, !.rec.ph = "insert"]
Durable(w) == [mem[w] EXCEPT !.rec.ph = "durable", !.held = IF mem[w].rec.ours THEN FALSE ELSE @]
Started(w, d) == [mem[w] EXCEPT !.tasks = @ \cup {Task(d)}, !.held = TRUE, !.rec.ph = "durable"]

Rebalance(w) ==
  /\ Runs(w) /\ reader # w
  /\ \/ (~Runs(reader) \/ mem[reader].drains) /\ UNCHANGED spare
     \/ Runs(reader) /\ spare.rebalances > 0 /\ spare' = [spare EXCEPT !.rebalances = @ - 1]
  /\ reader' = w
  /\ UNCHANGED <<doc, ledger, events, calls, outside, mem, committed, handled, marks, late>>

Fetch(w) ==
  /\ Runs(w) /\ ~mem[w].drains /\ reader = w /\ mem[w].rec = NoRecord /\ committed < Records
  /\ With(w, [(IF mem[w].held THEN [mem[w] EXCEPT !.rec.ph = "look"]
               ELSE [Registered(w) EXCEPT !.held = Keeps("an insert is registered")]) EXCEPT !.rec.r = committed + 1])
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

Insert(w) ==
  /\ Reaches(w) /\ mem[w].rec.ph = "insert"
  /\ \E claim \in BOOLEAN :
       /\ claim => ~Paused(w) /\ (Healthy(w) \/ ~Keeps("a claimed insert needs the lease"))
       /\ LET op == [Op("insert", w) EXCEPT !.r = mem[w].rec.r, !.claim = claim, !.park = Parks(w)]
              answer == IF ~Matches(op, doc) THEN "duplicate" ELSE IF claim THEN "claimed" ELSE "waiting"
          IN Write(op, w, [mem[w] EXCEPT !.rec.ph = answer], IF Keeps("an unknown insert is sent again") THEN mem[w] ELSE Durable(w))
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

Inserted(w) ==
  /\ Runs(w) /\ mem[w].rec.ph \in {"claimed", "waiting", "duplicate"}
  /\ With(w, CASE mem[w].rec.ph = "duplicate" -> [mem[w] EXCEPT !.rec.ph = "look"]
               [] mem[w].rec.ph = "waiting" -> Durable(w)
               [] mem[w].rec.ph = "claimed" ->
                    Started(w, Changed([Op("insert", w) EXCEPT !.r = mem[w].rec.r, !.claim = TRUE], Absent)))
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

\* The duplicate's document is read, and what it asks for is done.
Look(w) ==
  LET m == mem[w]
      again == [m EXCEPT !.rec.ph = IF m.rec.ours THEN "insert" ELSE "look"]
      reply == [Op("reply", w) EXCEPT !.r = m.rec.r]
      adopt == [Op("adopt", w) EXCEPT !.f = doc.f]
      merge == [Op("merge", w) EXCEPT !.r = m.rec.r, !.claim = ~Paused(w), !.park = Parks(w)]
  IN
  /\ Reaches(w) /\ m.rec.ph = "look"
  /\ CASE doc.st \in {"absent", "announced"} /\ ~m.rec.ours /\ Keeps("a stub is no job") ->
            ~m.held /\ With(w, Registered(w)) /\ UNCHANGED <<doc, late, spare>>
       [] doc.st = "absent" -> With(w, again) /\ UNCHANGED <<doc, late, spare>>
       [] doc.st = "announced" /\ ~Keeps("a stub is no job") -> With(w, Durable(w)) /\ UNCHANGED <<doc, late, spare>>
       [] doc.st = "announced" -> Healthy(w) /\ Write(merge, w, IF merge.claim THEN Started(w, Changed(merge, doc)) ELSE again, again)
       [] doc.st = "claimed" /\ doc.own = w /\ m.rec.ours /\ (m.rec.r \in doc.to \/ ~Keeps("an adopted job gets its reply")) ->
            IF Healthy(w) THEN Write(adopt, w, Started(w, Changed(adopt, doc)), again)
            ELSE With(w, Durable(w)) /\ UNCHANGED <<doc, late, spare>>
       [] OTHER ->
            IF Terminal(doc) \/ m.rec.r \notin doc.to
            THEN Write(reply, w,
                       IF doc.st = "claimed" /\ doc.own = w /\ m.rec.ours THEN m
                       ELSE [Durable(w) EXCEPT !.pubs = IF Terminal(doc) THEN @ \cup {Publication(Changed(reply, doc))} ELSE @],
                       again)
            ELSE With(w, Durable(w)) /\ UNCHANGED <<doc, late, spare>>
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

Commit(w) ==
  /\ Runs(w) /\ mem[w].rec.ph = "durable"
  /\ committed' = IF reader = w THEN mem[w].rec.r ELSE committed
  /\ With(w, [mem[w] EXCEPT !.rec = NoRecord])
  /\ UNCHANGED <<doc, ledger, events, calls, outside, reader, handled, marks, late, spare>>

(***************************************************************************)
(* Taker and audit                                                         *)
(***************************************************************************)
\* What is to end is taken under a pause, too.
Take(w) ==
  /\ Paused(w) => (doc.cancel \/ passed) /\ Keeps("what is to end is taken under a pause")
  /\ ~mem[w].drains
  /\ Reaches(w) /\ doc.st = "waiting" /\ doc.due /\ ~mem[w].held /\ mem[w].taken = 0
  /\ Healthy(w) \/ ~Keeps("a take needs the lease")
  /\ LET op == Op("take", w)
     IN Write(op, w, [mem[w] EXCEPT !.held = Keeps("a take is registered"), !.taken = Changed(op, doc).f], mem[w])
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

Taken(w) ==
  /\ Reaches(w) /\ mem[w].taken # 0
  /\ \/ /\ With(w, IF doc.st = "claimed" /\ doc.own = w /\ (doc.f = mem[w].taken \/ ~Keeps("a take is registered"))
                   THEN [mem[w] EXCEPT !.tasks = @ \cup {[Task(doc) EXCEPT !.f = mem[w].taken]}, !.held = TRUE, !.taken = 0]
                   ELSE [mem[w] EXCEPT !.held = FALSE, !.taken = 0])
        /\ UNCHANGED spare
     \/ /\ spare.losses > 0 /\ spare' = [spare EXCEPT !.losses = @ - 1]
        /\ With(w, [mem[w] EXCEPT !.held = FALSE, !.taken = 0])
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late>>

\* What is due and of a paused batch is put aside. It is not modelled that a park and an `Overdue` chase each other.
Park(w) ==
  /\ Reaches(w) /\ Parks(w) /\ ~mem[w].drains /\ doc.due /\ ~passed /\ Matches(Op("park", w), doc)
  /\ Write(Op("park", w), w, mem[w], mem[w])
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

Overdue(w) ==
  /\ Reaches(w) /\ ~mem[w].drains /\ passed /\ Matches(Op("overdue", w), doc) /\ Keeps("overdue makes due")
  /\ Write(Op("overdue", w), w, mem[w], mem[w])
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

AuditRead(w) ==
  /\ SlowReads /\ Reaches(w) /\ Healthy(w) /\ doc.st = "claimed" /\ doc.own = w /\ mem[w].unheld # doc.f
  /\ Keeps("an audit")
  /\ With(w, [mem[w] EXCEPT !.unheld = doc.f])
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

Adopt(w) ==
  LET f == IF SlowReads THEN mem[w].unheld ELSE doc.f
      op == [Op("adopt", w) EXCEPT !.f = f]
      m == [mem[w] EXCEPT !.unheld = 0]
      kept == [m EXCEPT !.tasks = @ \cup {Task(Changed(op, doc))}, !.held = TRUE]
  IN
  /\ Reaches(w) /\ Keeps("an audit")
  /\ Healthy(w) \/ ~Keeps("an adoption needs the lease")
  /\ IF SlowReads THEN mem[w].unheld # 0 ELSE doc.st = "claimed" /\ doc.own = w
  /\ IF mem[w].held THEN SlowReads /\ With(w, m) /\ UNCHANGED <<doc, late, spare>>
     ELSE IF Keeps("an adoption compares the fence") THEN Write(op, w, IF Matches(op, doc) THEN kept ELSE m, m)
     ELSE With(w, [m EXCEPT !.tasks = @ \cup {[Task(doc) EXCEPT !.f = f]}, !.held = TRUE]) /\ UNCHANGED <<doc, late, spare>>
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

(***************************************************************************)
(* Pipeline and finisher                                                   *)
(***************************************************************************)
Admit(w, t) ==
  /\ Runs(w) /\ Healthy(w) /\ t.ph = "ready" /\ t.res # ""
  /\ With(w, Moved(w, t, [t EXCEPT !.ph = "ended"]))
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

Mark(w, t) ==
  LET op == [Op("mark", w) EXCEPT !.f = t.f]
      marked == Moved(w, t, [t EXCEPT !.ph = "marked"])
  IN
  /\ AtMostOnce /\ Reaches(w) /\ Healthy(w) /\ t.ph = "ready" /\ t.res = "" /\ Keeps("at most once is marked")
  /\ Write(op, w, IF Matches(op, doc) THEN marked ELSE Dropped(w, t), IF Keeps("an unknown mark is sent again") THEN mem[w] ELSE marked)
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

\* Directly before each call of a job, the first and those after an error.
MayCall(w) ==
  /\ ~Halted(w) \/ ~Keeps("a call looks at the halts")
  /\ ~mem[w].drains \/ ~Keeps("a call looks at the drain")
  /\ ~passed \/ ~Keeps("a call looks at the deadline")

Call(w, t) ==
  /\ MayCall(w)
  /\ Runs(w) /\ t.res = "" /\ t.ph = IF AtMostOnce /\ Keeps("at most once is marked") THEN "marked" ELSE "ready"
  /\ Healthy(w) \/ ~Keeps("a call needs the lease")
  /\ With(w, Moved(w, t, [t EXCEPT !.ph = "calling"]))
  /\ calls' = calls \cup {[w |-> w, g |-> t.g, f |-> t.f, i |-> Cardinality({c \in calls : c.f = t.f}) + 1]}
  /\ UNCHANGED <<doc, ledger, events, outside, inlets, late, spare>>

Answer(w, t) ==
  /\ Runs(w) /\ t.ph = "calling"
  /\ With(w, Moved(w, t, [t EXCEPT !.ph = "ended", !.res = "succeeded"]))
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

\* An error answer that may be tried again later; what it cost is on the ledger before the job waits.
Error(w, t) ==
  /\ Reaches(w) /\ t.ph = "calling" /\ spare.errors > 0
  /\ spare' = [spare EXCEPT !.errors = @ - 1]
  /\ ledger' = WithRow(t.g, t.f, FALSE)
  /\ calls' = {c \in calls : ~(c.w = w /\ c.f = t.f)}
  /\ With(w, Moved(w, t, [t EXCEPT !.ph = "back", !.due = FALSE]))
  /\ UNCHANGED <<doc, events, outside, inlets, late>>

\* The mark was made, then the lease came into doubt: surely nothing was sent.
Doubt(w, t) ==
  /\ Runs(w) /\ (~Healthy(w) \/ Paused(w) \/ mem[w].drains) /\ t.ph = "marked"
  /\ With(w, Moved(w, t, [t EXCEPT !.ph = "back", !.park = Parks(w)]))
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

\* What is ready and paused is laid down, unless it is to end.
LayDown(w, t) ==
  /\ Runs(w) /\ Paused(w) /\ t.ph = "ready" /\ t.res # "cancelled"
  /\ ~passed \/ ~Keeps("a pause lets the overdue end")
  /\ With(w, Moved(w, t, [t EXCEPT !.ph = "back", !.park = Parks(w), !.keep = t.called]))
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

Expire(w, t) ==
  /\ Runs(w) /\ passed /\ t.ph \in {"ready", "marked"} /\ t.res = ""
  /\ With(w, Moved(w, t, [t EXCEPT !.ph = "ended", !.res = "expired"]))
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

\* The owner finds the mark of a cancel, or knows that the batch is stopped; a running call is stopped, and its spend estimated.
SeeCancel(w, t) ==
  /\ Reaches(w)
  /\ (doc.cancel /\ doc.st = "claimed" /\ doc.own = w) \/ (mem[w].knows.st = "cancelled" /\ Keeps("who comes into a stopped batch ends"))
  /\ \/ t.ph \in {"ready", "marked", "calling"} /\ t.res # "cancelled"
     \/ t.ph = "ended" /\ t.res = "succeeded" /\ ~Keeps("an outcome is frozen")
  /\ ledger' = IF t.ph = "calling" THEN WithRow(t.g, t.f, FALSE) ELSE ledger
  /\ With(w, Moved(w, t, [t EXCEPT !.ph = "ended", !.res = "cancelled"]))
  /\ UNCHANGED <<doc, events, calls, outside, inlets, late, spare>>

\* A worker that shuts down puts back what is ready and not started; `called` is taken off only where surely nothing was sent.
HandBack(w, t) ==
  /\ Runs(w) /\ t.ph = "ready"
  /\ IF mem[w].drains THEN UNCHANGED spare ELSE spare.handbacks > 0 /\ spare' = [spare EXCEPT !.handbacks = @ - 1]
  /\ With(w, Moved(w, t, [t EXCEPT !.ph = "back", !.keep = t.called /\ Keeps("a hand-back keeps called")]))
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late>>

PutBack(w, t) ==
  LET op == [Op("wait", w) EXCEPT !.f = t.f, !.due = t.due, !.park = t.park, !.keep = t.keep]
      marked == doc.st = "claimed" /\ Mine(doc, w, t.f) /\ ~Matches(op, doc)
  IN
  /\ Reaches(w) /\ t.ph = "back"
  /\ Write(op, w, IF marked THEN Moved(w, t, [t EXCEPT !.ph = "ended", !.res = "cancelled"]) ELSE Dropped(w, t), mem[w])
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

Finish(w, t) ==
  LET op == [Op("finish", w) EXCEPT !.f = t.f, !.res = t.res, !.tok = <<t.f, 0>>]
      stored == Terminal(doc) /\ Mine(doc, w, t.f) /\ Keeps("a mismatch is read again")
      won == Matches(op, doc) \/ stored
      out == [g |-> t.g, content |-> <<t.f, t.res>>, billed |-> t.res = "succeeded", f |-> t.f, to |-> t.to, tok |-> op.tok,
              row |-> t.res # "succeeded", told |-> FALSE]
  IN
  /\ Reaches(w) /\ t.ph = "ended"
  /\ \/ /\ doc' = Applied(op, doc) /\ UNCHANGED <<late, spare>>
        /\ With(w, IF won THEN [Dropped(w, t) EXCEPT !.pubs = @ \cup {out}] ELSE Dropped(w, t))
        /\ ledger' = IF t.res # "succeeded" THEN ledger
                     ELSE IF ~Keeps("billed once the finish is known") THEN WithRow(t.g, t.f, TRUE)
                     ELSE IF won THEN ledger ELSE WithRow(t.g, t.f, FALSE)
     \/ /\ spare.losses > 0 /\ spare' = [spare EXCEPT !.losses = @ - 1]
        /\ doc' = Applied(op, doc) /\ UNCHANGED <<ledger, late, mem>>
     \/ /\ spare.lates > 0 /\ spare' = [spare EXCEPT !.lates = @ - 1]
        /\ late' = late \cup {op} /\ UNCHANGED <<doc, ledger, mem>>
  /\ UNCHANGED <<events, calls, outside, inlets>>

(***************************************************************************)
(* Publisher                                                               *)
(***************************************************************************)
Row(w, p) ==
  /\ Reaches(w) /\ ~p.row
  /\ ledger' = WithRow(p.g, p.f, TRUE)
  /\ With(w, [mem[w] EXCEPT !.pubs = (@ \ {p}) \cup {[p EXCEPT !.row = TRUE]}])
  /\ UNCHANGED <<doc, events, calls, outside, inlets, late, spare>>

Tell(w, p) ==
  /\ Runs(w) /\ ~p.told
  /\ events' = events \cup {[g |-> p.g, to |-> a, content |-> p.content] : a \in p.to}
  /\ With(w, [mem[w] EXCEPT !.pubs = (@ \ {p}) \cup {[p EXCEPT !.told = TRUE]}])
  /\ UNCHANGED <<doc, ledger, calls, outside, inlets, late, spare>>

Clear(w, p) ==
  LET op == [Op("clear", w) EXCEPT !.tok = p.tok, !.to = p.to]
      rest == mem[w].pubs \ {p}
      again == ~Matches(op, doc) /\ doc.out # NoToken /\ doc.out = p.tok
  IN
  /\ Reaches(w) /\ (p.row \/ ~Keeps("clear awaits the ledger")) /\ (p.told \/ ~Keeps("clear awaits the topic"))
  /\ Write(op, w, [mem[w] EXCEPT !.pubs = IF again THEN rest \cup {Publication(doc)} ELSE rest], mem[w])
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

Republish(w) ==
  /\ Reaches(w) /\ doc.out # NoToken /\ mem[w].pubs = {}
  /\ doc.own = w \/ (Dead(doc.own) /\ Keeps("outboxes of the dead are published"))
  /\ With(w, [mem[w] EXCEPT !.pubs = {Publication(doc)}])
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

(***************************************************************************)
(* Control: handled at least once, acknowledged once the write is known    *)
(***************************************************************************)
Halting == [pause |-> "paused", resume |-> "", stop |-> "cancelled"]
Halts(op) == op.do = "halt" /\ (halt.seq < op.n \/ ~Keeps("a halt compares the offset"))
Marked(op) == IF Halts(op) THEN [st |-> op.res, seq |-> op.n, told |-> FALSE] ELSE halt

Handle(w) ==
  LET n == handled + 1
      op == CASE Control[n] = "cancel" -> [Op("cancel", w) EXCEPT !.n = n]
              [] Control[n] = "rerun" -> [Op("rerun", w) EXCEPT !.n = n]
              [] Control[n] = "reply" -> [Op("reply", w) EXCEPT !.r = Records + n]
              [] OTHER -> [Op("halt", w) EXCEPT !.n = n, !.res = Halting[Control[n]]]
  IN
  /\ Reaches(w) /\ handled < Len(Control)
  /\ Control[n] = "rerun" => Terminal(doc) \/ doc.seq >= n \* who asks for it has seen the result, or the record comes again
  /\ \/ /\ doc' = Applied(op, doc) /\ halt' = Marked(op) /\ handled' = n /\ UNCHANGED <<late, spare>>
        /\ With(w, IF Control[n] = "reply" /\ Terminal(doc)
                   THEN [mem[w] EXCEPT !.pubs = @ \cup {Publication(Changed(op, doc))}] ELSE mem[w])
     \/ /\ spare.losses > 0 /\ spare' = [spare EXCEPT !.losses = @ - 1]
        /\ doc' = Applied(op, doc) /\ halt' = Marked(op) /\ UNCHANGED <<handled, late, mem>>
     \/ /\ spare.lates > 0 /\ spare' = [spare EXCEPT !.lates = @ - 1]
        /\ late' = late \cup {op} /\ UNCHANGED <<doc, halt, handled, mem>>
  /\ UNCHANGED <<ledger, events, calls, outside, committed, reader, passed>>

\* What was to be run again as soon as its result is out.
RerunPublished(w) ==
  LET op == Op("rerun_published", w) IN
  /\ Reaches(w) /\ Matches(op, doc)
  /\ Write(op, w, mem[w], mem[w])
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

(***************************************************************************)
(* Halts: every worker looks for them every second                         *)
(***************************************************************************)
Learn(w) ==
  /\ Reaches(w) /\ mem[w].knows # halt
  /\ With(w, [mem[w] EXCEPT !.knows = halt])
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

\* Documents of the batch are told, then it is noted that they are.
TellDocuments(w) ==
  LET op == [Op("tell", w) EXCEPT !.res = mem[w].knows.st] IN
  /\ Reaches(w) /\ Halted(w) /\ ~mem[w].knows.told /\ Scope = "batch"
  /\ \/ doc' = Applied(op, doc) /\ UNCHANGED <<late, spare>>
     \/ spare.lates > 0 /\ spare' = [spare EXCEPT !.lates = @ - 1] /\ late' = late \cup {op} /\ UNCHANGED doc
  /\ halt' = IF halt.seq = mem[w].knows.seq /\ spare' = spare THEN [halt EXCEPT !.told = TRUE] ELSE halt
  /\ UNCHANGED <<mem, ledger, events, calls, outside, committed, reader, handled, passed>>

\* What was put aside becomes due as long as the batch is not paused: some put it aside who did not know yet.
Unpark(w) ==
  /\ Reaches(w) /\ ~Paused(w) /\ doc.parked /\ Keeps("the parked are looked for")
  /\ Write(Op("unpark", w), w, mem[w], mem[w])
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

(***************************************************************************)
(* Leases, deaths, sweeps                                                  *)
(***************************************************************************)
\* A renewal whose lease is read as expired makes the equality fail.
Renewed(ws) == [w \in Workers |-> IF mem[w].dead \in ws THEN [mem[w] EXCEPT !.unmoved = FALSE] ELSE mem[w]]
Unmoved(ws) == {IF op.do = "fence" /\ op.v \in ws THEN [op EXCEPT !.ok = FALSE] ELSE op : op \in late}

Tick ==
  LET renews == {w \in Workers : Reaches(w) /\ lease[w].st = "held"} IN
  /\ clock' = [w \in Workers |->
       IF mode[w] \notin {"up", "paused"} THEN Even
       ELSE IF w \in renews THEN [age |-> 0, even |-> IF clock[w].age >= 1 THEN 0 ELSE IF clock[w].even < 3 THEN clock[w].even + 1 ELSE 3]
       ELSE [age |-> IF clock[w].age < 3 THEN clock[w].age + 1 ELSE 3, even |-> clock[w].even]]
  /\ lease' = [w \in Workers |->
       IF w \in renews THEN [st |-> "held", left |-> 3]
       ELSE [lease[w] EXCEPT !.left = IF @ > 0 /\ mode[w] # "gone" THEN @ - 1 ELSE 0]] \* how slowly the killed expire is of no matter
  /\ mem' = Renewed(renews)
  /\ late' = Unmoved(renews)
  /\ UNCHANGED <<doc, ledger, events, calls, mode, hurt, db, inlets, spare>>

Start(w) ==
  /\ mode[w] = "unborn" /\ db /\ (SlowReads \/ \E v \in Workers : Lost(v))
  /\ mode' = [mode EXCEPT ![w] = "up"]
  /\ clock' = [clock EXCEPT ![w] = [age |-> 0, even |-> 0]]
  /\ lease' = IF Keeps("the lease comes before claims") THEN [lease EXCEPT ![w] = [st |-> "held", left |-> 3]] ELSE lease
  /\ UNCHANGED <<doc, ledger, events, calls, hurt, db, mem, inlets, late, spare>>

\* Only where the rule is left out: the lease is inserted some time after the start.
StartLate(w) ==
  /\ ~Keeps("the lease comes before claims")
  /\ Reaches(w) /\ lease[w].st = "none"
  /\ lease' = [lease EXCEPT ![w] = [st |-> "held", left |-> 3]]
  /\ UNCHANGED <<doc, ledger, events, calls, mode, hurt, clock, db, mem, inlets, late, spare>>

Ask(w) ==
  /\ SlowReads /\ Reaches(w) /\ ~mem[w].asks /\ mem[w].dead = Nobody /\ MayDeclare(w)
  /\ With(w, [mem[w] EXCEPT !.asks = TRUE])
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

Expired(v) == lease[v].st = "held" /\ lease[v].left = 0

\* The answer: some expired lease, after which the own gap is looked at again; or none.
Find(w) ==
  /\ SlowReads /\ Reaches(w) /\ mem[w].asks
  /\ \/ \E v \in Workers \ {w} :
          /\ Expired(v) /\ (MayDeclare(w) \/ ~Keeps("the gap is looked at again"))
          /\ With(w, [mem[w] EXCEPT !.asks = FALSE, !.dead = v, !.unmoved = TRUE])
     \/ With(w, [mem[w] EXCEPT !.asks = FALSE])
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

Fences(op) == lease[op.v].st = "held" /\ (op.ok \/ ~Keeps("fencing compares until"))
Fenced(op) == IF Fences(op) THEN [lease EXCEPT ![op.v].st = "fenced"] ELSE lease

Fence(w) ==
  /\ Reaches(w)
  /\ \E v \in Workers \ {w} :
       /\ IF SlowReads THEN mem[w].dead = v ELSE Expired(v) /\ MayDeclare(w)
       /\ LET op == [Op("fence", w) EXCEPT !.v = v, !.ok = SlowReads => mem[w].unmoved] IN
          \/ lease' = Fenced(op) /\ UNCHANGED <<late, spare>>
          \/ /\ spare.lates > 0 /\ spare' = [spare EXCEPT !.lates = @ - 1]
             /\ late' = late \cup {op} /\ UNCHANGED lease
  /\ With(w, [mem[w] EXCEPT !.dead = Nobody, !.unmoved = TRUE])
  /\ UNCHANGED <<doc, ledger, events, calls, mode, hurt, clock, db, inlets>>

\* The owner that the document names; where the rule is left out, the leases are read first.
SweepRead(w) ==
  /\ SlowReads /\ Reaches(w) /\ mem[w].sweeps = {}
  /\ With(w, [mem[w] EXCEPT !.sweeps = IF ~Keeps("owners are read before leases") THEN {v \in Workers : Dead(v)}
                                       ELSE IF doc.st = "claimed" THEN {doc.own} ELSE {}])
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late, spare>>

Sweep(w) ==
  /\ Reaches(w)
  /\ Keeps("the sweep goes on") \/ doc.lost = 0
  /\ \E v \in Workers :
       /\ IF SlowReads THEN v \in mem[w].sweeps ELSE doc.st = "claimed" /\ doc.own = v /\ Dead(v)
       /\ IF ~Keeps("owners are read before leases") THEN doc.st = "claimed" /\ doc.own = v ELSE TRUE
       /\ LET m == [mem[w] EXCEPT !.sweeps = {}] IN
          IF Dead(v) \/ ~Keeps("owners are read before leases") THEN Write([Op("sweep", w) EXCEPT !.v = v], w, m, m)
          ELSE With(w, m) /\ UNCHANGED <<doc, late, spare>>
  /\ UNCHANGED <<ledger, events, calls, outside, inlets>>

(***************************************************************************)
(* What may go wrong                                                       *)
(***************************************************************************)
Forgets(w) == mem' = [mem EXCEPT ![w] = Blank]

Crash(w) ==
  /\ mode[w] \in {"up", "paused"} /\ spare.crashes > 0
  /\ spare' = [spare EXCEPT !.crashes = @ - 1]
  /\ mode' = [mode EXCEPT ![w] = "gone"] /\ hurt' = hurt \cup {w} /\ Forgets(w)
  /\ clock' = [clock EXCEPT ![w] = Even]
  /\ UNCHANGED <<doc, ledger, events, calls, lease, db, inlets, late>>

\* A renewal that finds the lease fenced ends the process.
Exit(w) ==
  /\ Reaches(w) /\ lease[w].st = "fenced"
  /\ mode' = [mode EXCEPT ![w] = "gone"] /\ Forgets(w)
  /\ clock' = [clock EXCEPT ![w] = Even]
  /\ UNCHANGED <<doc, ledger, events, calls, hurt, lease, db, inlets, late, spare>>

\* It learns of it with a renewal: reads and takes nothing more, and ends once its last call is over and everything else is handed back.
Drain(w) ==
  /\ Reaches(w) /\ spare.drains > 0 /\ ~mem[w].drains
  /\ spare' = [spare EXCEPT !.drains = @ - 1]
  /\ With(w, [mem[w] EXCEPT !.drains = TRUE])
  /\ UNCHANGED <<doc, ledger, events, calls, outside, inlets, late>>

Leave(w) ==
  /\ Reaches(w) /\ mem[w].drains /\ mem[w].rec = NoRecord /\ mem[w].taken = 0 /\ mem[w].pubs = {}
  /\ mem[w].tasks = {} \/ (~Keeps("who drains hands back") /\ \A t \in mem[w].tasks : t.ph = "ready")
  /\ mode' = [mode EXCEPT ![w] = "gone"] /\ Forgets(w)
  /\ lease' = [lease EXCEPT ![w] = [st |-> "none", left |-> 0]]
  /\ clock' = [clock EXCEPT ![w] = Even]
  /\ UNCHANGED <<doc, ledger, events, calls, hurt, db, inlets, late, spare>>

Pause(w) ==
  /\ Runs(w) /\ spare.pauses > 0
  /\ spare' = [spare EXCEPT !.pauses = @ - 1]
  /\ mode' = [mode EXCEPT ![w] = "paused"] /\ hurt' = hurt \cup {w}
  /\ UNCHANGED <<doc, ledger, events, calls, lease, clock, db, mem, inlets, late>>

\* Where the rule is left out, the answer of a renewal that was sent before the pause counts from now.
Resume(w) ==
  /\ mode[w] = "paused"
  /\ mode' = [mode EXCEPT ![w] = "up"]
  /\ clock' = IF Keeps("a renewal counts from its sending") THEN clock ELSE [clock EXCEPT ![w].age = 0]
  /\ UNCHANGED <<doc, ledger, events, calls, hurt, lease, db, mem, inlets, late, spare>>

Outage ==
  /\ db /\ spare.outages > 0
  /\ spare' = [spare EXCEPT !.outages = @ - 1] /\ db' = FALSE
  /\ UNCHANGED <<doc, ledger, events, calls, mode, hurt, lease, clock, mem, inlets, late>>

Restore ==
  /\ ~db /\ db' = TRUE
  /\ UNCHANGED <<doc, ledger, events, calls, mode, hurt, lease, clock, mem, inlets, late, spare>>

Executed ==
  /\ db
  /\ \E op \in late :
       /\ late' = late \ {op}
       /\ IF op.do = "fence" THEN lease' = Fenced(op) /\ UNCHANGED doc
          ELSE doc' = Applied(op, doc) /\ UNCHANGED lease
       /\ halt' = Marked(op)
  /\ UNCHANGED <<ledger, events, calls, mode, hurt, clock, mem, db, committed, reader, handled, passed, spare>>

FallDue ==
  /\ doc.st = "waiting" /\ ~doc.due /\ ~doc.parked
  /\ doc' = [doc EXCEPT !.due = TRUE]
  /\ UNCHANGED <<ledger, events, calls, outside, mem, inlets, late, spare>>

Passes ==
  /\ Deadline /\ ~passed /\ passed' = TRUE
  /\ UNCHANGED <<doc, ledger, events, calls, outside, mem, committed, reader, handled, halt, late, spare>>

(***************************************************************************)
(* The whole                                                               *)
(***************************************************************************)
Init ==
  /\ doc = Absent /\ ledger = {} /\ events = {} /\ calls = {}
  /\ mode = [w \in Workers |-> IF w \in Unborn THEN "unborn" ELSE "up"]
  /\ hurt = {}
  /\ lease = [w \in Workers |-> IF w \in Unborn THEN [st |-> "none", left |-> 0] ELSE [st |-> "held", left |-> 3]]
  /\ clock = [w \in Workers |-> Even]
  /\ mem = [w \in Workers |-> Blank]
  /\ db = TRUE
  /\ committed = 0 /\ reader \in Workers \ Unborn /\ handled = 0 /\ halt = NoHalt /\ passed = FALSE
  /\ late = {}
  /\ spare = [crashes |-> Crashes, pauses |-> Pauses, outages |-> Outages, losses |-> Losses, lates |-> Lates,
              errors |-> Errors, rebalances |-> Rebalances, handbacks |-> HandBacks, drains |-> Drains]

Intake(w) == Fetch(w) \/ Insert(w) \/ Inserted(w) \/ Look(w) \/ Commit(w)
Work(w) == \E t \in mem[w].tasks :
  Admit(w, t) \/ Mark(w, t) \/ Call(w, t) \/ Answer(w, t) \/ Doubt(w, t) \/ LayDown(w, t) \/ Expire(w, t)
  \/ PutBack(w, t) \/ Finish(w, t) \/ (mem[w].drains /\ HandBack(w, t))
Publish(w) == \E p \in mem[w].pubs : Row(w, p) \/ Tell(w, p) \/ Clear(w, p)
Stop(w) == \E t \in mem[w].tasks : SeeCancel(w, t)
HaltedWork(w) == Park(w) \/ Overdue(w) \/ TellDocuments(w) \/ Unpark(w) \/ Leave(w)
Chance(w) == Rebalance(w) \/ Crash(w) \/ Pause(w) \/ Drain(w) \/ \E t \in mem[w].tasks : Error(w, t) \/ HandBack(w, t)

Next ==
  \/ Tick \/ Outage \/ Restore \/ Executed \/ FallDue \/ Passes
  \/ \E w \in Workers :
       \/ Intake(w) \/ Take(w) \/ Taken(w) \/ AuditRead(w) \/ Adopt(w) \/ Work(w) \/ Publish(w) \/ Stop(w) \/ Republish(w) \/ Handle(w)
       \/ RerunPublished(w) \/ Learn(w) \/ HaltedWork(w)
       \/ Start(w) \/ StartLate(w) \/ Ask(w) \/ Find(w) \/ Fence(w) \/ SweepRead(w) \/ Sweep(w) \/ Exit(w) \/ Resume(w) \/ Chance(w)

\* What a worker does of itself; that it does something of it, while it can, is all that is asked of it.
Progress(w) ==
  \/ Intake(w) \/ Take(w) \/ Taken(w) \/ Adopt(w) \/ Work(w) \/ Publish(w) \/ Stop(w) \/ Republish(w) \/ Handle(w) \/ RerunPublished(w)
  \/ Start(w) \/ Fence(w) \/ Sweep(w) \/ Exit(w) \/ (Rebalance(w) /\ (~Runs(reader) \/ mem[reader].drains)) \/ HaltedWork(w)

\* Nothing is said of faults, of late writes and of the end of a pause: they may come or not. For models with `SlowReads = FALSE`.
Fairness ==
  /\ WF_vars(Tick) /\ WF_vars(Restore) /\ WF_vars(FallDue) /\ WF_vars(Passes)
  /\ \A w \in Workers : WF_vars(Progress(w)) /\ WF_vars(Learn(w))

Safe == Init /\ [][Next]_vars
Spec == Safe /\ Fairness

(***************************************************************************)
(* What has to hold                                                        *)
(***************************************************************************)
\* An accepted record below the committed offset has its job in a document, its payload until it succeeds, and its reply address.
NothingIsLost == \A r \in 1..committed : doc.st \notin {"absent", "announced"} /\ r \in doc.to /\ (doc.payload \/ doc.st = "succeeded")

\* One result content per generation, and it is the stored one.
OneResult ==
  /\ \A e1, e2 \in events : e1.g = e2.g => e1.content = e2.content
  /\ \A e \in events : e.g = doc.g => Terminal(doc) /\ e.content = Content(doc)

\* One billed row per generation, the winner's.
BilledOnce ==
  /\ \A r1, r2 \in ledger : r1.g = r2.g /\ r1.billed /\ r2.billed => r1 = r2
  /\ \A row \in ledger : row.billed /\ row.g = doc.g => doc.st = "succeeded" /\ row.f = doc.f

\* A cleared outbox means: told to every address, and billed if it succeeded.
ClearedIsTold ==
  /\ Terminal(doc) /\ doc.out = NoToken =>
       /\ \A a \in doc.to : [g |-> doc.g, to |-> a, content |-> Content(doc)] \in events
       /\ doc.st = "succeeded" => [g |-> doc.g, f |-> doc.f, billed |-> TRUE] \in ledger
  /\ \A g \in 1..(doc.g - 1) : \E e \in events : e.g = g

\* What a worker that was not killed has spent is in its hands, in an outbox or on the ledger.
SpendIsKept ==
  \A c \in calls : mode[c.w] # "gone" =>
    \/ \E t \in mem[c.w].tasks : t.f = c.f
    \/ \E row \in ledger : row.g = c.g /\ row.f = c.f
    \/ \E w \in Workers : \E p \in mem[w].pubs : p.g = c.g /\ p.f = c.f
    \/ doc.out # NoToken /\ doc.g = c.g /\ doc.f = c.f

\* A generation is called once, and once more for each worker that was lost with it; error answers are counted apart.
CallsAreBounded == \A g \in 1..doc.g : Cardinality({c \in calls : c.g = g /\ ~Lost(c.w)}) <= 1
AtMostOnceIsOnce == AtMostOnce => \A g \in 1..doc.g : Cardinality({c \in calls : c.g = g}) <= 1

\* A person is asked only after so many workers were lost; a late take is a claim of a worker that was lost before.
DeadIsEarned == doc.st = "dead" => Cardinality({v \in Workers : Lost(v)}) + Lates - spare.lates >= MaxTakeovers

CancelledDoesNotWait == doc.st = "waiting" /\ doc.cancel => doc.due
CancelEndsItsGeneration == Control = <<"cancel", "rerun">> => ~(doc.g = 2 /\ (doc.cancel \/ doc.st = "cancelled"))
NothingExpiresEarly == doc.expires => doc.st = "announced" \/ (Terminal(doc) /\ doc.out = NoToken)

\* Who was never stopped or killed is never declared dead, whatever the database does.
LivingIsNotFenced == \A v \in Workers : lease[v].st = "fenced" => v \in hurt

\* A terminal state is terminal until a rerun.
OneEnd == [][Terminal(doc) => doc'.g > doc.g \/ (doc'.g = doc.g /\ Content(doc') = Content(doc))]_vars

OnlyTheExpiredAreFenced == [][\A v \in Workers : lease[v].st = "held" /\ lease'[v].st = "fenced" => lease[v].left = 0]_vars
OnlyTheHurtAreSwept == [][doc'.lost > doc.lost => doc.own \in hurt]_vars
TheDeadDoNotCall == [][\A c \in calls' \ calls : lease[c.w].st = "held"]_vars

\* No call begins on a worker that knows of a halt, or that it is to end, nor after the deadline.
NoCallUnderAHalt == [][\A c \in calls' \ calls : ~Halted(c.w) /\ ~mem[c.w].drains]_vars
NoCallAfterTheDeadline == [][calls' \ calls # {} => ~passed]_vars

\* What is ready and overdue is not put back to wait: it ends.
TheOverdueDoNotWait ==
  [][passed /\ Drains = 0 /\ HandBacks = 0 =>
       \A w \in Workers : \A t \in mem[w].tasks : t.ph = "ready" => ~\E u \in mem'[w].tasks : u.f = t.f /\ u.ph = "back"]_vars

EveryJobEnds == <>[](Terminal(doc) /\ doc.out = NoToken /\ committed = Records /\ handled = Len(Control) /\ ~doc.again)
=============================================================================

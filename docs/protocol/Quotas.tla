------------------------------- MODULE Quotas -------------------------------
(***************************************************************************)
(* What a tenant may use in one day, held by several workers: one book     *)
(* that every worker reads and writes as a whole by its revision, the      *)
(* chunk that each has free, and the ledger, which is the truth.           *)
(*                                                                         *)
(* Amounts are requests: a job is estimated as one and may turn out as     *)
(* two. A job's document is reduced to whose name it is claimed in and to  *)
(* whether its row is still in an outbox; `Jobs.tla` says how it moves.    *)
(* A swap has three fates: answered; executed with the answer lost;        *)
(* executed later or never.                                                *)
(*                                                                         *)
(* The limit is "hard", or lets jobs pass without a chunk: all of them     *)
(* ("soft"), or some ("lowers": those that are in the lowest priority).    *)
(***************************************************************************)
EXTENDS Integers, FiniteSets, TLC

CONSTANTS
  Workers, Nobody,
  Limit,
  Jobs,         \* that wait at the beginning
  Coming,       \* that come later
  Begins, Becomes, \* what the limit is at the beginning, and after a change
  Changes,      \* how often it is changed to and fro
  Outside,      \* workers that could not ask the book before their first job passed
  Crashes, Pauses, Losses, Lates, Errors, \* how often what may go wrong does; an error is an estimate that was too low
  Without

VARIABLES
  book,    \* [rev, closed, grants, shut]; a grant of None is no entry
  local,   \* of each worker: what is used or held, what is free, what it knows to be written, what it knows of the limit, whether it has
           \* entered the book or could not, whether it was late and has to look again
  step,    \* what each is about to write: [do, v, seen, sum]
  holds,   \* open holds in each worker's memory
  claimed, \* documents claimed in each worker's name
  outbox,  \* what finished jobs have cost whose rows are not on the ledger yet
  spent,   \* the ledger: billed rows by the incarnation that they name
  waits, coming, \* jobs
  mode,    \* "up", "paused", "gone"
  fenced,
  said,    \* what the limit is, as it was set last
  excess,  \* how much more than estimated was used
  late, spare

vars == <<book, local, step, holds, claimed, outbox, spent, waits, coming, mode, fenced, said, excess, late, spare>>

Keeps(rule) == rule \notin Without
Symmetric == Permutations(Workers)

None == -1
Unknown == -1
Empty == [rev |-> 0, closed |-> 0, grants |-> [w \in Workers |-> None], shut |-> {}]
Idle == [do |-> "", v |-> Nobody, seen |-> Empty, sum |-> 0]
Max(a, b) == IF a > b THEN a ELSE b

RECURSIVE Sum(_, _)
Sum(f, ws) == IF ws = {} THEN 0 ELSE LET w == CHOOSE w \in ws : TRUE IN f[w] + Sum(f, ws \ {w})
Entries(b) == {w \in Workers : b.grants[w] # None}
Granted(b, ws) == Sum(b.grants, Entries(b) \cap ws)
Counted(b) == b.closed + Granted(b, Workers)
Spent == Sum(spent, Workers)
Billed == Spent + Sum(outbox, Workers)

Runs(w) == mode[w] = "up"
Have(w) == local[w].used + Max(local[w].free, 0)

\* The book, or one that is begun: where jobs pass, others are about to enter what they have spent themselves.
Read(w) ==
  IF book.rev > 0 \/ local[w].limit # "hard" THEN book
  ELSE [book EXCEPT !.closed = Sum(spent, Workers \ (IF Keeps("who begins a book leaves out its own rows") THEN {w} ELSE {}))]

Has(w, l) == local' = [local EXCEPT ![w] = l] /\ step' = [step EXCEPT ![w] = Idle]

\* A book is written as the revision after the one that was read.
Swapped(op) == op.rev = book.rev \/ ~Keeps("a swap compares the revision")
Next1(b) == [b EXCEPT !.rev = @ + 1]
Swap(new, done, refused, doubtful) ==
  LET op == [rev |-> new.rev, new |-> Next1(new)] IN
  \/ /\ IF Swapped(op) THEN book' = op.new /\ done ELSE UNCHANGED book /\ refused
     /\ UNCHANGED <<late, spare>>
  \/ /\ spare.losses > 0 /\ spare' = [spare EXCEPT !.losses = @ - 1]
     /\ book' = IF Swapped(op) THEN op.new ELSE book
     /\ doubtful /\ UNCHANGED late
  \/ /\ spare.lates > 0 /\ spare' = [spare EXCEPT !.lates = @ - 1]
     /\ late' = late \cup {op} /\ doubtful /\ UNCHANGED book

jobs == <<holds, claimed, outbox, spent, waits, coming>>
world == <<mode, fenced, said, excess>>

(***************************************************************************)
(* Holds                                                                   *)
(***************************************************************************)
Passes(w) == local[w].limit # "hard" /\ (local[w].entered \/ ~Keeps("an entry comes before what passes"))

Hold(w) ==
  /\ Runs(w) /\ waits > 0 /\ (local[w].free >= 1 \/ Passes(w))
  /\ ~fenced[w] \/ ~Keeps("a hold needs the lease")
  /\ waits' = waits - 1
  /\ claimed' = [claimed EXCEPT ![w] = @ + 1] /\ holds' = [holds EXCEPT ![w] = @ + 1]
  /\ local' = [local EXCEPT ![w].used = @ + 1, ![w].free = @ - 1]
  /\ UNCHANGED <<book, step, outbox, spent, coming, world, late, spare>>

\* The finish wins where the document is still claimed in this worker's name; else the hold is given back.
Settle(w) ==
  /\ Runs(w) /\ holds[w] > 0
  /\ holds' = [holds EXCEPT ![w] = @ - 1]
  /\ IF claimed[w] > 0
     THEN \E more \in 0..Max(0, spare.errors) :
            /\ more <= 1
            /\ claimed' = [claimed EXCEPT ![w] = @ - 1]
            /\ outbox' = [outbox EXCEPT ![w] = @ + 1 + more]
            /\ local' = [local EXCEPT ![w].used = @ + more, ![w].free = @ - more]
            /\ excess' = excess + more
            /\ spare' = [spare EXCEPT !.errors = @ - more]
     ELSE /\ local' = [local EXCEPT ![w].used = @ - 1, ![w].free = @ + 1]
          /\ UNCHANGED <<claimed, outbox, excess, spare>>
  /\ UNCHANGED <<book, step, spent, waits, coming, mode, fenced, said, late>>

\* The row reaches the ledger; rows of the dead are brought there by others.
Record(w) ==
  /\ Runs(w)
  /\ \E u \in Workers :
       /\ outbox[u] > 0 /\ (u = w \/ fenced[u])
       /\ spent' = [spent EXCEPT ![u] = @ + outbox[u]] /\ outbox' = [outbox EXCEPT ![u] = 0]
  /\ UNCHANGED <<book, local, step, holds, claimed, waits, coming, world, late, spare>>

(***************************************************************************)
(* Chunks                                                                  *)
(***************************************************************************)
Room(b, w) == Limit - b.closed - Granted(b, Workers \ {w}) - Have(w)

\* What is sent with an entry: who has used something before it had one is late, also where the answer is lost.
Sent(w, seen) == [local[w] EXCEPT !.late = @ \/ (local[w].used > 0 /\ seen.grants[w] = None /\ Keeps("who enters late looks again"))]
Doubted(w, seen) == [(IF Keeps("who may have entered late looks again") THEN Sent(w, seen) ELSE local[w]) EXCEPT !.written = Unknown]

\* Asking in vain changes nothing, so it is asked only where there is room.
AskRead(w) ==
  /\ Runs(w) /\ step[w] = Idle /\ waits > 0 /\ local[w].free < 1 /\ ~local[w].shut /\ local[w].limit # "soft"
  /\ Room(Read(w), w) >= 1
  /\ step' = [step EXCEPT ![w] = [Idle EXCEPT !.do = "ask", !.seen = Read(w)]]
  /\ UNCHANGED <<book, local, jobs, world, late, spare>>

Ask(w) ==
  LET seen == step[w].seen IN
  /\ Runs(w) /\ step[w].do = "ask"
  /\ IF w \in seen.shut /\ Keeps("who was closed gets no entry")
     THEN Has(w, [local[w] EXCEPT !.shut = TRUE, !.free = 0]) /\ UNCHANGED <<book, late, spare>>
     ELSE IF Room(seen, w) < 1 THEN Has(w, local[w]) /\ UNCHANGED <<book, late, spare>>
     ELSE \E more \in 1..Room(seen, w) :
            LET entry == Have(w) + more
                granted == [Sent(w, seen) EXCEPT !.free = entry - local[w].used, !.written = entry, !.entered = TRUE] IN
            Swap([seen EXCEPT !.grants[w] = entry],
                 Has(w, granted),
                 Has(w, Sent(w, seen)),
                 Has(w, IF ~Keeps("an unknown grant is none") THEN granted
                        ELSE IF Keeps("a doubt is remembered") THEN Doubted(w, seen) ELSE local[w]))
  /\ UNCHANGED <<jobs, world>>

\* An entry before the first job passes, so that others count what was spent if its owner dies; it is asked for once.
BeginRead(w) ==
  /\ Runs(w) /\ step[w] = Idle /\ waits > 0 /\ local[w].limit # "hard" /\ ~local[w].entered /\ ~local[w].shut
  /\ Keeps("an entry comes before what passes")
  /\ \/ step' = [step EXCEPT ![w] = [Idle EXCEPT !.do = "begin", !.seen = Read(w)]] /\ UNCHANGED <<local, spare>>
     \/ /\ spare.losses > 0 /\ spare' = [spare EXCEPT !.losses = @ - 1]
        /\ Has(w, [local[w] EXCEPT !.entered = TRUE])
  /\ UNCHANGED <<book, jobs, world, late>>

AtRest(w) == local[w].free = 0 /\ local[w].written = local[w].used

\* What is free is lowered here first, then there.
BackRead(w) ==
  /\ Runs(w) /\ step[w] = Idle /\ ~local[w].shut /\ ~AtRest(w)
  /\ waits = 0 \/ local[w].free <= 0
  /\ step' = [step EXCEPT ![w] = [Idle EXCEPT !.do = "back", !.seen = Read(w)]]
  /\ local' = IF Keeps("a return is lowered here first") THEN [local EXCEPT ![w].free = 0] ELSE local
  /\ UNCHANGED <<book, jobs, world, late, spare>>

\* The write of what is used; also of the first entry, when nothing is.
Back(w) ==
  LET seen == step[w].seen
      sent == Sent(w, seen)
      begins == step[w].do = "begin" IN
  /\ Runs(w) /\ step[w].do \in {"back", "begin"}
  /\ IF w \in seen.shut
     THEN Has(w, [local[w] EXCEPT !.shut = TRUE]) /\ UNCHANGED <<book, late, spare>>
     ELSE Swap([seen EXCEPT !.grants[w] = local[w].used],
               Has(w, [sent EXCEPT !.written = local[w].used, !.free = 0, !.entered = TRUE]),
               Has(w, sent),
               Has(w, [Doubted(w, seen) EXCEPT !.entered = @ \/ begins]))
  /\ UNCHANGED <<jobs, world>>

(***************************************************************************)
(* The dead                                                                *)
(***************************************************************************)
IsDead(v) == fenced[v] \/ (~Keeps("only the fenced are closed") /\ mode[v] # "up")

\* First that nothing is claimed in its name, then that no outbox of its is left; the other way round a finish slips between the two looks.
First(v) == IF Keeps("claims are looked at first") THEN claimed[v] = 0 ELSE outbox[v] = 0
Second(v) == IF Keeps("claims are looked at first") THEN outbox[v] = 0 ELSE claimed[v] = 0

CloseLook(w) ==
  /\ Runs(w)
  /\ \/ /\ step[w] = Idle
        /\ \E v \in Workers \ {w} :
             /\ IsDead(v) /\ book.grants[v] # None
             /\ First(v) \/ ~Keeps("a close awaits claims")
             /\ step' = [step EXCEPT ![w] = [Idle EXCEPT !.do = "look", !.v = v]]
     \/ /\ step[w].do = "look"
        /\ step' = [step EXCEPT ![w] = IF Second(step[w].v) \/ ~Keeps("a close awaits outboxes") THEN [@ EXCEPT !.do = "sum"] ELSE Idle]
  /\ UNCHANGED <<book, local, jobs, world, late, spare>>

CloseSum(w) ==
  LET without == (Workers \ Entries(book)) \cup {step[w].v} IN
  /\ Runs(w) /\ step[w].do = "sum"
  /\ step' = [step EXCEPT ![w] =
       IF book.grants[step[w].v] = None THEN Idle
       ELSE [@ EXCEPT !.do = "close", !.seen = book,
                      !.sum = IF ~Keeps("closed is what the ledger says") THEN book.closed
                              ELSE IF ~Keeps("closed is no chunk") THEN book.closed + book.grants[step[w].v]
                              ELSE IF ~Keeps("closed leaves out entries") THEN Spent
                              ELSE Sum(spent, without)]]
  /\ UNCHANGED <<book, local, jobs, world, late, spare>>

\* Who was late compares what is closed with the ledger once its own entry is known: somebody may have counted its rows there.
LevelRead(w) ==
  LET sum == Sum(spent, Workers \ Entries(book)) IN
  /\ Runs(w) /\ step[w] = Idle /\ local[w].late
  /\ local[w].written # Unknown \/ ~Keeps("a second look awaits the own entry")
  /\ IF book.closed = sum THEN Has(w, [local[w] EXCEPT !.late = FALSE])
     ELSE step' = [step EXCEPT ![w] = [Idle EXCEPT !.do = "close", !.seen = book, !.sum = sum]] /\ UNCHANGED local
  /\ UNCHANGED <<book, jobs, world, late, spare>>

\* A busy book changes faster than its ledger is summed: the sum goes into the book as it is by now, if nobody has come or gone since.
Again(w) ==
  LET seen == step[w].seen IN
  /\ Runs(w) /\ step[w].do = "close" /\ seen.rev # book.rev
  /\ \/ Entries(book) = Entries(seen) /\ book.shut = seen.shut /\ book.closed = seen.closed
     \/ ~Keeps("a sum is for those who had no entry")
  /\ step' = [step EXCEPT ![w].seen = book]
  /\ UNCHANGED <<book, local, jobs, world, late, spare>>

Close(w) ==
  LET v == step[w].v
      seen == step[w].seen
      closed == [seen EXCEPT !.closed = step[w].sum] IN
  /\ Runs(w) /\ step[w].do = "close"
  /\ Swap(IF v = Nobody THEN closed ELSE [closed EXCEPT !.grants[v] = None, !.shut = @ \cup {v}],
          Has(w, [local[w] EXCEPT !.late = @ /\ v # Nobody]), Has(w, local[w]), Has(w, local[w]))
  /\ UNCHANGED <<jobs, world>>

(***************************************************************************)
(* What may go wrong                                                       *)
(***************************************************************************)
Fresh == [used |-> 0, free |-> 0, written |-> 0, shut |-> FALSE, limit |-> Begins, entered |-> FALSE, late |-> FALSE]
Forgets(w) ==
  /\ local' = [local EXCEPT ![w] = Fresh] /\ step' = [step EXCEPT ![w] = Idle] /\ holds' = [holds EXCEPT ![w] = 0]
  /\ mode' = [mode EXCEPT ![w] = "gone"]

Crash(w) ==
  /\ mode[w] \in {"up", "paused"} /\ spare.crashes > 0
  /\ spare' = [spare EXCEPT !.crashes = @ - 1]
  /\ Forgets(w)
  /\ UNCHANGED <<book, claimed, outbox, spent, waits, coming, fenced, said, excess, late>>

Exit(w) == Runs(w) /\ fenced[w] /\ Forgets(w) /\ UNCHANGED <<book, claimed, outbox, spent, waits, coming, fenced, said, excess, late, spare>>

Pause(w) ==
  /\ Runs(w) /\ spare.pauses > 0
  /\ spare' = [spare EXCEPT !.pauses = @ - 1] /\ mode' = [mode EXCEPT ![w] = "paused"]
  /\ UNCHANGED <<book, local, step, jobs, fenced, said, excess, late>>

Resume(w) == mode[w] = "paused" /\ mode' = [mode EXCEPT ![w] = "up"] /\ UNCHANGED <<book, local, step, jobs, fenced, said, excess, late, spare>>

\* Declared dead by somebody, while it is stopped or killed.
Fence(v) ==
  /\ mode[v] # "up" /\ ~fenced[v] /\ Keeps("only the fenced are closed")
  /\ fenced' = [fenced EXCEPT ![v] = TRUE]
  /\ UNCHANGED <<book, local, step, jobs, mode, said, excess, late, spare>>

Sweep(v) ==
  /\ IsDead(v) /\ claimed[v] > 0
  /\ waits' = waits + claimed[v] /\ claimed' = [claimed EXCEPT ![v] = 0]
  /\ UNCHANGED <<book, local, step, holds, outbox, spent, coming, world, late, spare>>

\* The limit is changed, and workers learn of it one after the other; what is free under the one before is not used any more.
Change ==
  /\ spare.changes > 0 /\ spare' = [spare EXCEPT !.changes = @ - 1] /\ said' = IF said = Begins THEN Becomes ELSE Begins
  /\ UNCHANGED <<book, local, step, jobs, mode, fenced, excess, late>>

Learn(w) ==
  /\ Runs(w) /\ local[w].limit # said
  /\ local' = [local EXCEPT ![w].limit = said, ![w].free = 0]
  /\ UNCHANGED <<book, step, jobs, world, late, spare>>

Arrive ==
  /\ coming > 0 /\ coming' = coming - 1 /\ waits' = waits + 1
  /\ UNCHANGED <<book, local, step, holds, claimed, outbox, spent, world, late, spare>>

Executed ==
  /\ \E op \in late : late' = late \ {op} /\ book' = IF Swapped(op) THEN op.new ELSE book
  /\ UNCHANGED <<local, step, jobs, world, spare>>

(***************************************************************************)
(* The whole                                                               *)
(***************************************************************************)
Zero == [w \in Workers |-> 0]
Init ==
  /\ book = Empty
  /\ local = [w \in Workers |-> [Fresh EXCEPT !.entered = w \in Outside]] /\ step = [w \in Workers |-> Idle]
  /\ holds = Zero /\ claimed = Zero /\ outbox = Zero /\ spent = Zero
  /\ waits = Jobs /\ coming = Coming
  /\ mode = [w \in Workers |-> "up"] /\ fenced = [w \in Workers |-> FALSE]
  /\ said = Begins /\ excess = 0 /\ late = {}
  /\ spare = [crashes |-> Crashes, pauses |-> Pauses, losses |-> Losses, lates |-> Lates, errors |-> Errors, changes |-> Changes]

Work(w) == Hold(w) \/ Settle(w) \/ Record(w) \/ Learn(w) \/ Exit(w)
Write(w) == AskRead(w) \/ Ask(w) \/ BeginRead(w) \/ BackRead(w) \/ Back(w) \/ CloseLook(w) \/ CloseSum(w) \/ LevelRead(w) \/ Again(w) \/ Close(w)
Next ==
  \/ Arrive \/ Executed \/ Change
  \/ \E w \in Workers : Work(w) \/ Write(w) \/ Fence(w) \/ Sweep(w) \/ Crash(w) \/ Pause(w) \/ Resume(w)

Fairness == WF_vars(Arrive) /\ \A w \in Workers : WF_vars(Work(w)) /\ WF_vars(Write(w)) /\ WF_vars(Fence(w)) /\ WF_vars(Sweep(w))
Safe == Init /\ [][Next]_vars
Spec == Safe /\ Fairness

(***************************************************************************)
(* What has to hold                                                        *)
(***************************************************************************)
\* Billed spend stays within a limit that is always hard, but for what estimates were too low.
SpendIsBounded == Begins = "hard" /\ Changes = 0 => Billed <= Limit + excess

\* Of what somebody reads, or would begin with, nothing is counted twice, but for rows of those who entered late and look again, or are dead
\* and are closed.
NothingIsCountedTwice ==
  \A w \in Workers : Runs(w) =>
    LET begins == IF book.rev = 0 THEN {w} ELSE {}
        again == {v \in Workers : local[v].late \/ mode[v] = "gone"} IN
    Read(w).closed <= Sum(spent, (Workers \ (Entries(book) \cup begins)) \cup again)

\* Who could not enter before its first job passed, and died before it told, is not in the book.
Missed == IF Losses + Lates = 0 /\ Outside = {} THEN {} ELSE {v \in Workers : mode[v] # "up" /\ v \notin Entries(book) \cup book.shut}

\* In the end the book says what the ledger says, and nobody waits while there is room.
TheBookComesRight ==
  <>[](/\ Counted(book) \in (Spent - Sum(spent, Missed))..Spent
       /\ waits = 0 \/ (said = "hard" /\ Spent >= Limit))
=============================================================================

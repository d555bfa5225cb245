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
(***************************************************************************)
EXTENDS Integers, FiniteSets, TLC

CONSTANTS
  Workers, Nobody,
  Limit,
  Jobs,         \* that wait at the beginning
  Coming,       \* that come later
  Crashes, Pauses, Losses, Lates, Errors, \* how often what may go wrong does; an error is an estimate that was too low
  Without

VARIABLES
  book,    \* [rev, closed, grants, shut]; a grant of None is no entry
  local,   \* of each worker: what is used or held, what is free, what it knows to be written
  step,    \* what each is about to write: [do, v, seen, sum]
  holds,   \* open holds in each worker's memory
  claimed, \* documents claimed in each worker's name
  outbox,  \* what finished jobs have cost whose rows are not on the ledger yet
  spent,   \* the ledger: billed rows by the incarnation that they name
  waits, coming, \* jobs
  mode,    \* "up", "paused", "gone"
  fenced,
  excess,  \* how much more than estimated was used
  late, spare

vars == <<book, local, step, holds, claimed, outbox, spent, waits, coming, mode, fenced, excess, late, spare>>

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
world == <<mode, fenced, excess>>

(***************************************************************************)
(* Holds                                                                   *)
(***************************************************************************)
Hold(w) ==
  /\ Runs(w) /\ waits > 0 /\ local[w].free >= 1
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
  /\ UNCHANGED <<book, step, spent, waits, coming, mode, fenced, late>>

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

\* Asking in vain changes nothing, so it is asked only where there is room.
AskRead(w) ==
  /\ Runs(w) /\ step[w] = Idle /\ waits > 0 /\ local[w].free < 1 /\ ~local[w].shut
  /\ Room(book, w) >= 1
  /\ step' = [step EXCEPT ![w] = [Idle EXCEPT !.do = "ask", !.seen = book]]
  /\ UNCHANGED <<book, local, jobs, world, late, spare>>

Ask(w) ==
  LET seen == step[w].seen
      idle == step' = [step EXCEPT ![w] = Idle] IN
  /\ Runs(w) /\ step[w].do = "ask"
  /\ IF w \in seen.shut /\ Keeps("who was closed gets no entry")
     THEN local' = [local EXCEPT ![w].shut = TRUE, ![w].free = 0] /\ idle /\ UNCHANGED <<book, late, spare>>
     ELSE IF Room(seen, w) < 1 THEN idle /\ UNCHANGED <<book, local, late, spare>>
     ELSE \E more \in 1..Room(seen, w) :
            LET entry == Have(w) + more
                granted == [local EXCEPT ![w].free = entry - local[w].used, ![w].written = entry] IN
            Swap([seen EXCEPT !.grants[w] = entry],
                 local' = granted /\ idle,
                 UNCHANGED local /\ idle,
                 /\ local' = IF ~Keeps("an unknown grant is none") THEN granted
                             ELSE IF Keeps("a doubt is remembered") THEN [local EXCEPT ![w].written = Unknown] ELSE local
                 /\ idle)
  /\ UNCHANGED <<jobs, world>>

AtRest(w) == local[w].free = 0 /\ local[w].written = local[w].used

\* What is free is lowered here first, then there.
BackRead(w) ==
  /\ Runs(w) /\ step[w] = Idle /\ ~local[w].shut /\ ~AtRest(w)
  /\ waits = 0 \/ local[w].free <= 0
  /\ step' = [step EXCEPT ![w] = [Idle EXCEPT !.do = "back", !.seen = book]]
  /\ local' = IF Keeps("a return is lowered here first") THEN [local EXCEPT ![w].free = 0] ELSE local
  /\ UNCHANGED <<book, jobs, world, late, spare>>

Back(w) ==
  LET seen == step[w].seen
      idle == step' = [step EXCEPT ![w] = Idle] IN
  /\ Runs(w) /\ step[w].do = "back"
  /\ IF w \in seen.shut
     THEN local' = [local EXCEPT ![w].shut = TRUE] /\ idle /\ UNCHANGED <<book, late, spare>>
     ELSE Swap([seen EXCEPT !.grants[w] = local[w].used],
               local' = [local EXCEPT ![w].written = local[w].used, ![w].free = 0] /\ idle,
               UNCHANGED local /\ idle,
               local' = [local EXCEPT ![w].written = Unknown] /\ idle)
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

Close(w) ==
  LET idle == step' = [step EXCEPT ![w] = Idle] IN
  /\ Runs(w) /\ step[w].do = "close"
  /\ Swap([step[w].seen EXCEPT !.closed = step[w].sum, !.grants[step[w].v] = None, !.shut = @ \cup {step[w].v}], idle, idle, idle)
  /\ UNCHANGED <<local, jobs, world>>

(***************************************************************************)
(* What may go wrong                                                       *)
(***************************************************************************)
Fresh == [used |-> 0, free |-> 0, written |-> 0, shut |-> FALSE]
Forgets(w) ==
  /\ local' = [local EXCEPT ![w] = Fresh] /\ step' = [step EXCEPT ![w] = Idle] /\ holds' = [holds EXCEPT ![w] = 0]
  /\ mode' = [mode EXCEPT ![w] = "gone"]

Crash(w) ==
  /\ mode[w] \in {"up", "paused"} /\ spare.crashes > 0
  /\ spare' = [spare EXCEPT !.crashes = @ - 1]
  /\ Forgets(w)
  /\ UNCHANGED <<book, claimed, outbox, spent, waits, coming, fenced, excess, late>>

Exit(w) == Runs(w) /\ fenced[w] /\ Forgets(w) /\ UNCHANGED <<book, claimed, outbox, spent, waits, coming, fenced, excess, late, spare>>

Pause(w) ==
  /\ Runs(w) /\ spare.pauses > 0
  /\ spare' = [spare EXCEPT !.pauses = @ - 1] /\ mode' = [mode EXCEPT ![w] = "paused"]
  /\ UNCHANGED <<book, local, step, jobs, fenced, excess, late>>

Resume(w) == mode[w] = "paused" /\ mode' = [mode EXCEPT ![w] = "up"] /\ UNCHANGED <<book, local, step, jobs, fenced, excess, late, spare>>

\* Declared dead by somebody, while it is stopped or killed.
Fence(v) ==
  /\ mode[v] # "up" /\ ~fenced[v] /\ Keeps("only the fenced are closed")
  /\ fenced' = [fenced EXCEPT ![v] = TRUE]
  /\ UNCHANGED <<book, local, step, jobs, mode, excess, late, spare>>

Sweep(v) ==
  /\ IsDead(v) /\ claimed[v] > 0
  /\ waits' = waits + claimed[v] /\ claimed' = [claimed EXCEPT ![v] = 0]
  /\ UNCHANGED <<book, local, step, holds, outbox, spent, coming, world, late, spare>>

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
  /\ local = [w \in Workers |-> Fresh] /\ step = [w \in Workers |-> Idle]
  /\ holds = Zero /\ claimed = Zero /\ outbox = Zero /\ spent = Zero
  /\ waits = Jobs /\ coming = Coming
  /\ mode = [w \in Workers |-> "up"] /\ fenced = [w \in Workers |-> FALSE]
  /\ excess = 0 /\ late = {}
  /\ spare = [crashes |-> Crashes, pauses |-> Pauses, losses |-> Losses, lates |-> Lates, errors |-> Errors]

Work(w) == Hold(w) \/ Settle(w) \/ Record(w) \/ Exit(w)
Write(w) == AskRead(w) \/ Ask(w) \/ BackRead(w) \/ Back(w) \/ CloseLook(w) \/ CloseSum(w) \/ Close(w)
Next ==
  \/ Arrive \/ Executed
  \/ \E w \in Workers : Work(w) \/ Write(w) \/ Fence(w) \/ Sweep(w) \/ Crash(w) \/ Pause(w) \/ Resume(w)

Fairness == WF_vars(Arrive) /\ \A w \in Workers : WF_vars(Work(w)) /\ WF_vars(Write(w)) /\ WF_vars(Fence(w)) /\ WF_vars(Sweep(w))
Safe == Init /\ [][Next]_vars
Spec == Safe /\ Fairness

(***************************************************************************)
(* What has to hold                                                        *)
(***************************************************************************)
\* Billed spend stays within the limit, but for what estimates were too low.
SpendIsBounded == Billed <= Limit + excess

\* In the end the book says what the ledger says, and nobody waits while there is room.
TheBookComesRight == <>[](Counted(book) = Spent /\ (waits = 0 \/ Spent >= Limit))
=============================================================================

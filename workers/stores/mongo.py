"""The store on MongoDB, by PyMongo's client or Motor's: each verb's writes are the protocol's, spelt out in the modules beside this one."""

from broker.mongo import close
from workers.stores.control import ControlStore
from workers.stores.mongo_batches import BatchVerbs
from workers.stores.mongo_finished import FinishedVerbs
from workers.stores.mongo_halts import HaltVerbs
from workers.stores.mongo_jobs import JobVerbs
from workers.stores.mongo_leases import LeaseVerbs
from workers.stores.mongo_wire import Connection


class MongoStore(JobVerbs, FinishedVerbs, LeaseVerbs, HaltVerbs, BatchVerbs, Connection):
    """`MongoStore(connect(url)[name], owner)`; every verb ends after `timeout_s` seconds, a renewal after 5."""

    async def aclose(self) -> None:
        """Give back connections."""
        await close(self.database.client)


_: type[ControlStore] = MongoStore

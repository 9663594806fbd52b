"""asyncpg: prepared statements, portals that pause, COPY."""

import asyncio
import io
import os

import asyncpg


async def main():
    connection = await asyncpg.connect(os.environ["PROMONTORY_URL"], ssl=False)
    rows = await connection.fetch("SELECT job, max(value) AS most FROM up WHERE job = $1 GROUP BY 1", "node")
    assert [tuple(row) for row in rows] == [("node", 1.0)]
    async with connection.transaction():
        count = 0
        async for _ in connection.cursor("SELECT * FROM up", prefetch=3):
            count += 1
        assert count == 20, count
    out = io.BytesIO()
    query = "SELECT DISTINCT job FROM up ORDER BY 1"
    await connection.copy_from_query(query, output=out, format="csv", header=True)
    assert out.getvalue() == b"job\napi\nnode\n", out.getvalue()
    await connection.close()


asyncio.run(main())

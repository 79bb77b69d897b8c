-- What only psql can send: COPY through the client, and its own notices.
COPY copied FROM STDIN;
1	one
x	two
\.
COPY item (id, amount) FROM STDIN;
8	8
9	99
\.
COPY copied FROM STDIN (FORMAT csv);
1,"one
\.
COPY (SELECT 1 / (id - 1) FROM item) TO STDOUT;
COPY (SELECT nope FROM item) TO STDOUT;
SELECT 1; SELECT 1 / 0; SELECT 2;
SELECT 1 \; SELECT nope \; SELECT 2;
SELECT id / $1 FROM item \bind 0 \g
DO $$ BEGIN RAISE NOTICE 'noticed' USING ERRCODE = 'ZZ001', DETAIL = 'd', HINT = 'h'; RAISE WARNING 'warned'; END $$;
CREATE TABLE IF NOT EXISTS item (id int);
DROP TABLE IF EXISTS nowhere;

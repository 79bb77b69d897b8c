-- What runs at night: bulk changes, exports, maintenance.

-- name: import_clear
TRUNCATE price_import

-- name: import
COPY price_import FROM STDIN

-- name: import_apply
UPDATE part SET p_retailprice = price FROM price_import WHERE p_partkey = partkey AND p_retailprice <> price

-- name: export
COPY (SELECT o_orderkey, o_custkey, o_totalprice FROM orders WHERE o_orderdate >= '1998-07-01') TO STDOUT

-- name: refresh
REFRESH MATERIALIZED VIEW sales_by_month

-- name: cursor_open
DECLARE big_orders NO SCROLL CURSOR FOR
SELECT o_orderkey, o_totalprice::float8 FROM orders WHERE o_totalprice > 300000 ORDER BY o_totalprice DESC

-- name: cursor_fetch
FETCH 200 FROM big_orders

-- name: cursor_close
CLOSE big_orders

-- name: stock_check
DO $$
DECLARE
    supplier bigint;
    empty    integer := 0;
BEGIN
    FOR supplier IN SELECT s_suppkey FROM supplier WHERE s_nationkey = 7 LOOP
        empty := empty + (SELECT count(*) FROM partsupp WHERE ps_suppkey = supplier AND ps_availqty < 50);
    END LOOP;
    RAISE DEBUG '% offers nearly sold out', empty;
END
$$

-- name: prepare
PREPARE nation_balance (bigint) AS
SELECT count(*), sum(c_acctbal)::float8 FROM customer WHERE c_nationkey = $1

-- name: deallocate
DEALLOCATE nation_balance

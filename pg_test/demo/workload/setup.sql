-- What the application adds to the TPC-H tables: its roles, its functions, a trigger and a staging table.

CREATE ROLE shop LOGIN;
CREATE ROLE portal LOGIN;
CREATE ROLE analyst LOGIN;
CREATE ROLE batch LOGIN;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO shop, portal, analyst, batch;
GRANT INSERT, UPDATE ON orders, lineitem, partsupp, nation TO shop;
GRANT UPDATE ON part TO shop, batch;

-- The portal is under observation: one execution in fifty is kept, and whatever takes longer than 5 ms.
-- Only a superuser may say so, and it holds from a role's next session on.
ALTER ROLE portal SET pg_steward.sample_rate = 0.02;
ALTER ROLE portal SET pg_steward.slow_threshold = '5ms';

CREATE TABLE order_log (
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    orderkey bigint NOT NULL,
    what     text NOT NULL
);
GRANT SELECT, INSERT ON order_log TO shop;
GRANT SELECT ON order_log TO batch;

CREATE TABLE price_import (
    partkey bigint PRIMARY KEY,
    price   numeric(12, 2) NOT NULL CHECK (price > 0)
);
GRANT SELECT, INSERT, DELETE, TRUNCATE ON price_import TO batch;

CREATE SEQUENCE new_order_key START 1000000000;
GRANT USAGE ON SEQUENCE new_order_key TO shop;

CREATE FUNCTION log_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO order_log (orderkey, what) VALUES (NEW.o_orderkey, lower(TG_OP));
    RETURN NEW;
END
$$;
CREATE TRIGGER order_is_logged AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION log_order();

-- False when there is not enough of the part: the check below fails and is caught.
ALTER TABLE partsupp ADD CONSTRAINT enough_stock CHECK (ps_availqty >= 0);
CREATE FUNCTION reserve(part bigint, quantity integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE partsupp
    SET ps_availqty = ps_availqty - quantity
    WHERE ps_partkey = part
      AND ps_suppkey = (SELECT s.ps_suppkey FROM partsupp s WHERE s.ps_partkey = part
                        ORDER BY s.ps_supplycost LIMIT 1);
    RETURN FOUND;
EXCEPTION WHEN check_violation THEN
    RETURN false;
END
$$;

CREATE FUNCTION place_order(customer bigint, parts bigint[], quantity integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    key    bigint := nextval('new_order_key');
    wanted bigint;
    line   integer := 0;
BEGIN
    INSERT INTO orders VALUES (key, customer, 'O', 0, '1998-08-02', '3-MEDIUM', 'web', 0, 'placed by place_order');
    FOREACH wanted IN ARRAY parts LOOP
        CONTINUE WHEN NOT reserve(wanted, quantity);
        line := line + 1;
        INSERT INTO lineitem
        SELECT key, wanted, 1, line, quantity, quantity * p_retailprice, 0, 0, 'N', 'O',
               '1998-08-03', '1998-08-10', '1998-08-05', 'NONE', 'MAIL', ''
        FROM part WHERE p_partkey = wanted;
    END LOOP;
    UPDATE orders
    SET o_totalprice = (SELECT coalesce(sum(l_extendedprice), 0) FROM lineitem WHERE l_orderkey = key)
    WHERE o_orderkey = key;
    RETURN key;
END
$$;

CREATE MATERIALIZED VIEW sales_by_month AS
SELECT date_trunc('month', l_shipdate)::date AS month, sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM lineitem
GROUP BY 1;
ALTER MATERIALIZED VIEW sales_by_month OWNER TO batch;
GRANT CREATE ON SCHEMA public TO batch;

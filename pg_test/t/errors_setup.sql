-- Objects that the statements of errors_cases.sql fail on.
CREATE ROLE errors_app LOGIN;
CREATE DOMAIN small AS int CONSTRAINT small_enough CHECK (value < 10);
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1), (2);
CREATE TABLE item (
    id int CONSTRAINT item_key PRIMARY KEY,
    parent_id int CONSTRAINT item_parent REFERENCES parent,
    late_id int CONSTRAINT item_late REFERENCES parent DEFERRABLE INITIALLY DEFERRED,
    name text NOT NULL DEFAULT 'x',
    amount small CONSTRAINT item_amount CHECK (amount >= 0)
);
INSERT INTO item VALUES (1, 1, 1, 'one', 1), (2, 2, 2, 'two', 2);
CREATE VIEW item_names AS SELECT id, name FROM item;
CREATE TABLE secret (word text);
CREATE TABLE copied (n int, word text);

CREATE FUNCTION divide(a int, b int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN a / b;
END
$$;
CREATE FUNCTION divide_late(a int, b int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN a / b;
END
$$;
CREATE FUNCTION divide_sql(a int, b int) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT count(*) FROM item;
    SELECT count(*) / b FROM item WHERE id >= a;
$$;
CREATE FUNCTION inlined(a int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT 1 / (a - a) $$;
CREATE FUNCTION outer_most(depth int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    answer int;
BEGIN
    IF depth = 0 THEN
        SELECT divide_sql(1, 0) INTO answer;
    ELSE
        answer := outer_most(depth - 1) + 1;
    END IF;
    RETURN answer;
END
$$;
CREATE FUNCTION dynamic(statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
END
$$;
CREATE FUNCTION raise_all(code text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = code, MESSAGE = 'the message', DETAIL = 'the detail', HINT = 'the hint',
        COLUMN = 'a column', CONSTRAINT = 'a constraint', DATATYPE = 'a type', TABLE = 'a table', SCHEMA = 'a schema';
END
$$;
CREATE FUNCTION raise_again(code text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM raise_all(code);
EXCEPTION WHEN OTHERS THEN
    PERFORM count(*) FROM item;
    RAISE;
END
$$;
CREATE FUNCTION raise_another() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM raise_all('ZZ123');
EXCEPTION WHEN SQLSTATE 'ZZ123' THEN
    PERFORM 1 / (SELECT count(*) - count(*) FROM item);
END
$$;
CREATE FUNCTION diagnose(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    code text; message text; detail text; hint text; context text;
    col text; con text; typ text; tab text; sch text;
BEGIN
    EXECUTE statement;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
        hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT, col = COLUMN_NAME, con = CONSTRAINT_NAME,
        typ = PG_DATATYPE_NAME, tab = TABLE_NAME, sch = SCHEMA_NAME;
    RETURN concat_ws('|', code, message, detail, hint, context, col, con, typ, tab, sch);
END
$$;
CREATE PROCEDURE work(divisor int) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO copied VALUES (0, 'procedure');
    COMMIT;
    INSERT INTO copied VALUES (1 / divisor, 'procedure');
END
$$;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM divide_sql(1, NEW.n);
    RETURN NEW;
END
$$;
CREATE TABLE before_row (n int);
CREATE TRIGGER refuse BEFORE INSERT ON before_row FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TABLE after_row (n int);
CREATE TRIGGER refuse AFTER INSERT ON after_row FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TABLE after_commit (n int);
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON after_commit DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE MATERIALIZED VIEW ratios AS SELECT 10 / (n + 1) AS ratio FROM copied WITH NO DATA;
GRANT SELECT ON item TO errors_app;
